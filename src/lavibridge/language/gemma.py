"""Gemma 2 and 3, decoder-only, without the vocabulary head and without a key-value cache.

Gemma team 2024 (Gemma 2), arXiv 2408.00118; 2025 (Gemma 3), arXiv 2503.19786. From a Sana folder,
its text_encoder is loaded. The text part of a Gemma 3 that also reads images is `auto_model`'s.
LoRA on q_proj, k_proj, v_proj, o_proj.
"""

from lavibridge.language.hf import TransformersModel
from lavibridge.language.parts.toys import TOY_DECODER


class Gemma(TransformersModel):
    """Causal, with rotary positions; every other layer attends within a window."""

    models = {"gemma2": "Gemma2Model", "gemma3_text": "Gemma3TextModel"}  # noqa: RUF012 - a constant
    lora_targets = ("q_proj", "k_proj", "v_proj", "o_proj")
    call_options = {"use_cache": False}  # noqa: RUF012 - a constant of the class
    read = "norm_mean"
    is_decoder = True
    toy_template = "<s> $A"
    toy = {**TOY_DECODER, "head_dim": 16}  # noqa: RUF012 - a constant of the class
