"""Stable Diffusion 1 and 2: a U-Net with cross-attention.

Rombach et al. 2022, arXiv 2112.10752. LoRA as in LaVi-Bridge: the attention's linears, GEGLU projections, the
residual blocks' convolutions and time projections (224 layers of Stable Diffusion 1.4).
"""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float, Num
from torch import Tensor

from lavibridge.core.errors import ModelError
from lavibridge.vision.hf import DiffusersModel


class StableDiffusion(DiffusersModel):
    """UNet2DConditionModel that takes tokens and nothing else."""

    denoiser_folder = "unet"
    denoiser_class = "UNet2DConditionModel"
    class_names = ("UNet2DConditionModel",)
    lora_targets = (
        "to_q",
        "to_k",
        "to_v",
        "to_out.0",
        "ff.net.0.proj",
        "conv1",
        "conv2",
        "time_emb_proj",
        "conv_shortcut",
    )
    patch = 1
    toy = {  # noqa: RUF012 - a constant of the class
        "sample_size": 8,
        "block_out_channels": (32, 64),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "attention_head_dim": 4,
        "cross_attention_dim": 48,
    }

    def _call(
        self,
        noisy: Float[Tensor, "batch channel h w"],
        t: Num[Tensor, " batch"],
        tokens: Float[Tensor, "batch token context"],
        mask: Tensor | None,
        extra: Mapping[str, Any],
    ) -> Float[Tensor, "batch channel h w"]:
        return self.backbone(noisy, t, tokens, encoder_attention_mask=mask, return_dict=False, **extra)[0]

    def _context_width(self) -> int:
        settings = self.backbone.config
        if settings.addition_embed_type is not None:
            raise ModelError(
                f"'{self.config.source}' also takes '{settings.addition_embed_type}', as SDXL does, "
                "which this kind does not give: choose a Stable Diffusion 1 or 2"
            )
        return int(settings.cross_attention_dim)
