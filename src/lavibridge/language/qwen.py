"""Qwen 2, 2.5 and 3, decoder-only, without the vocabulary head and without a key-value cache.

Qwen team 2024 (Qwen2.5), arXiv 2412.15115; Yang et al. 2025 (Qwen3), arXiv 2505.09388. The tokenizer adds
no token before or after a text. LoRA on q_proj, k_proj, v_proj, o_proj.
"""

from lavibridge.language.hf import TransformersModel
from lavibridge.language.parts.toys import TOY_DECODER


class Qwen(TransformersModel):
    """Causal, with rotary positions."""

    models = {"qwen2": "Qwen2Model", "qwen3": "Qwen3Model"}  # noqa: RUF012 - a constant of the class
    lora_targets = ("q_proj", "k_proj", "v_proj", "o_proj")
    call_options = {"use_cache": False}  # noqa: RUF012 - a constant of the class
    read = "norm_mean"
    is_decoder = True
    pads = ("pad", "eos")
    toy_template = "$A"
    toy = TOY_DECODER
