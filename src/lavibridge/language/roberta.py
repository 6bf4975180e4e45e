"""RoBERTa, CamemBERT and XLM-R encoders, BGE-M3 among them: BERT whose positions count from the padding id.

With padding id 1, the first token is at position 2, and a table of 514 positions is for 512 tokens.

Liu et al. 2019, arXiv 1907.11692; Martin et al. 2019 (CamemBERT), arXiv 1911.03894; Conneau et al. 2019
(XLM-R), arXiv 1911.02116; Chen et al. 2024 (BGE-M3), arXiv 2402.03216. LoRA as in BERT.
"""

from typing import Any

import torch

from lavibridge.language.base import LanguageModel
from lavibridge.language.hf import TransformersModel
from lavibridge.language.parts.toys import TOY


class Roberta(TransformersModel):
    """The encoder without its pooling layer."""

    models = {  # noqa: RUF012 - a constant of the class
        "xlm-roberta": "XLMRobertaModel",
        "roberta": "RobertaModel",
        "camembert": "CamembertModel",
        "xlm-roberta-xl": "XLMRobertaXLModel",
    }
    lora_targets = ("self.query", "self.key", "self.value", "attention.output.dense")
    load_options = {"add_pooling_layer": False}  # noqa: RUF012 - a constant of the class
    learned_positions = True
    is_framed = True
    toy_template = "<s> $A </s>"
    toy = TOY

    def __init__(self, config: LanguageModel.Config, device: torch.device | None = None) -> None:
        super().__init__(config, device)
        self.first_position = self.backbone.config.pad_token_id + 1

    @classmethod
    def _positions(cls, settings: Any) -> int:
        return super()._positions(settings) - settings.pad_token_id - 1
