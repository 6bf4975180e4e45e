"""Llama and its like, decoder-only: features are read after the final norm, without the vocabulary head.

Touvron et al. 2023, arXiv 2307.09288. LoRA on q_proj, k_proj, v_proj, o_proj.
"""

from lavibridge.language.hf import TransformersModel


class Llama(TransformersModel):
    """LlamaModel: causal; no key-value cache is kept, as nothing is generated."""

    model_class = "LlamaModel"
    model_types = ("llama",)
    lora_targets = ("q_proj", "k_proj", "v_proj", "o_proj")
    call_options = {"use_cache": False}  # noqa: RUF012 - a constant of the class
    limits_positions = True
    toy_template = "<s> $A"
    toy = {  # noqa: RUF012 - a constant of the class
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
    }
