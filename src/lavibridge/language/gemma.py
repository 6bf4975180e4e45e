"""Gemma 2 and 3, decoder-only, without the vocabulary head and without a key-value cache.

Gemma team 2024 (Gemma 2), arXiv 2408.00118; 2025 (Gemma 3), arXiv 2503.19786. Of a Sana folder its own
text_encoder is read. Gemma 3's text models only; of its multimodal ones the text part is not looked for.
LoRA on q_proj, k_proj, v_proj, o_proj.
"""

from lavibridge.language.hf import TransformersModel


class Gemma(TransformersModel):
    """Causal, with rotary positions; every other layer sees a window only."""

    models = {"gemma2": "Gemma2Model", "gemma3_text": "Gemma3TextModel"}  # noqa: RUF012 - a constant
    lora_targets = ("q_proj", "k_proj", "v_proj", "o_proj")
    call_options = {"use_cache": False}  # noqa: RUF012 - a constant of the class
    read = "norm_mean"
    limits_positions = True
    toy_template = "<s> $A"
    toy = {  # noqa: RUF012 - a constant of the class
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 128,
    }
