"""What the families share whose denoiser is a U-Net with cross-attention.

LoRA as in LaVi-Bridge: the attention's linears, GEGLU projections, the residual blocks' convolutions and time
projections (224 layers of Stable Diffusion 1.4).
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from jaxtyping import Float, Num
from torch import Tensor

from lavibridge.core.contracts import Conditioning
from lavibridge.vision.hf import DiffusersModel
from lavibridge.vision.parts.padding import padding_mask


class UNet(DiffusersModel):
    """UNet2DConditionModel; a family says what its U-Net takes beside tokens."""

    denoiser_folder = "unet"
    denoiser_class = "UNet2DConditionModel"
    class_names = ("UNet2DConditionModel",)
    lora_targets: tuple[str, ...] = (
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
    toy: ClassVar[Mapping[str, Any]] = {
        "sample_size": 8,
        "block_out_channels": (32, 64),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "attention_head_dim": 4,
        "cross_attention_dim": 48,
    }
    addition: ClassVar[str | None] = None
    """The U-Net's `addition_embed_type`: what it takes beside tokens."""

    @classmethod
    def refusal(cls, source: str, revision: str | None = None) -> str | None:
        """Also where the U-Net takes something else beside tokens."""
        found = super().refusal(source, revision)
        if found is not None:
            return found
        beside = cls.settings_at(source, revision)[0].get("addition_embed_type")
        if beside == cls.addition:
            return None
        return f"a U-Net that takes '{beside}' beside tokens, where this kind knows '{cls.addition}'"

    def _call(
        self,
        noisy: Float[Tensor, "batch channel h w"],
        t: Num[Tensor, " batch"],
        conditioning: Conditioning,
    ) -> Float[Tensor, "batch channel h w"]:
        return self.backbone(
            noisy,
            t,
            conditioning.tokens,
            encoder_attention_mask=padding_mask(conditioning.mask),
            added_cond_kwargs=self._additions(noisy, conditioning),
            return_dict=False,
            **self._block_arguments(conditioning),
        )[0]

    def _additions(
        self, noisy: Float[Tensor, "batch channel h w"], conditioning: Conditioning
    ) -> Mapping[str, Any] | None:
        """What the U-Net takes beside tokens; nothing, if the family does not say otherwise."""
        return None

    def _context_width(self) -> int:
        return int(self.backbone.config.cross_attention_dim)
