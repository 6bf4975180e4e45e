"""BERT encoders, MiniLM sentence encoders among them: bidirectional with learned positions.

Devlin et al. 2019, arXiv 1810.04805; Wang et al. 2020 (MiniLM), arXiv 2002.10957. LoRA on the attention's
four linears (query, key, value, output), as LaVi-Bridge has it in T5.
"""

from lavibridge.language.hf import TransformersModel
from lavibridge.language.parts.toys import TOY


class Bert(TransformersModel):
    """BertModel without its pooling layer, which sentence encoders leave unused."""

    models = {"bert": "BertModel"}  # noqa: RUF012 - a constant of the class
    lora_targets = ("self.query", "self.key", "self.value", "attention.output.dense")
    load_options = {"add_pooling_layer": False}  # noqa: RUF012 - a constant of the class
    learned_positions = True
    is_framed = True
    toy_template = "<s> $A </s>"
    toy = TOY
