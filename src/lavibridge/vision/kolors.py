"""Kolors: the U-Net of Stable Diffusion XL, which first projects the tokens of a language model.

    token (4096) -> linear layer -> (2048)        the pooled vector has 4096 numbers, too

Kolors team 2024, without a paper (huggingface.co/Kwai-Kolors/Kolors). LoRA and its learning rate as in its
makers' training script: the linear layers of attention.
"""

from jaxtyping import Float
from torch import Tensor

from lavibridge.vision.parts.unet import SizedUNet


class Kolors(SizedUNet):
    """UNet2DConditionModel with `encoder_hid_dim_type: text_proj`. Its own text encoder is not described."""

    projection = "text_proj"
    context_field = "encoder_hid_dim"
    default_guidance_scale = 5.0
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    published_lr = {"vision_lora": 2e-5}  # noqa: RUF012 - a constant of the class
    toy = {  # noqa: RUF012
        **SizedUNet.toy,
        "cross_attention_dim": 32,
        "encoder_hid_dim": 48,
        "encoder_hid_dim_type": "text_proj",
    }

    def _context(self, tokens: Float[Tensor, "batch token context"]) -> Float[Tensor, "batch token _"]:
        return self.backbone.encoder_hid_proj(tokens)
