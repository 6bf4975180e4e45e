"""Llama and Mistral, decoder-only, without the vocabulary head and without a key-value cache.

Touvron et al. 2023, arXiv 2307.09288; Zhang et al. 2024 (TinyLlama), arXiv 2401.02385; Jiang et al. 2023
(Mistral), arXiv 2310.06825. LoRA on q_proj, k_proj, v_proj, o_proj.
"""

from lavibridge.language.hf import TransformersModel
from lavibridge.language.parts.toys import TOY_DECODER


class Llama(TransformersModel):
    """Causal, with rotary positions. The published bridge pads with <unk>, id 0."""

    models = {"llama": "LlamaModel", "mistral": "MistralModel"}  # noqa: RUF012 - a constant of the class
    read = "norm_mean"
    pads = ("unk", "pad", "eos")
    lora_targets = ("q_proj", "k_proj", "v_proj", "o_proj")
    call_options = {"use_cache": False}  # noqa: RUF012 - a constant of the class
    is_decoder = True
    toy_template = "<s> $A"
    toy = TOY_DECODER
