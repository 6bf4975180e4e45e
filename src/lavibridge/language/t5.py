"""T5 encoders, bidirectional with relative positions: of LaVi-Bridge's language models the most used.

Raffel et al. 2020, arXiv 1910.10683. LoRA on SelfAttention's q, k, v, o.
"""

from lavibridge.language.hf import TransformersModel


class T5(TransformersModel):
    """T5EncoderModel: the decoder's weights of a full checkpoint are left aside."""

    model_class = "T5EncoderModel"
    model_types = ("t5",)
    lora_targets = ("SelfAttention.q", "SelfAttention.k", "SelfAttention.v", "SelfAttention.o")
    limits_positions = False
    toy_template = "$A </s>"
    toy = {  # noqa: RUF012 - a constant of the class
        "d_model": 32,
        "d_kv": 16,
        "d_ff": 64,
        "num_layers": 2,
        "num_heads": 2,
        "decoder_start_token_id": 0,
    }
