"""The shared base of the families whose denoiser is a U-Net with cross-attention.

LoRA as in LaVi-Bridge: the linear layers of attention, GEGLU projections, and the convolutions and time
projections of the residual blocks (224 layers in Stable Diffusion 1.4).

Some also take a pooled vector of the prompt and the sizes of the image:

    [pooled | (height, width) of the original, (top, left) of the crop, (height, width)]

The sizes say that the original is as large as the image and not cropped, as in their pipelines by default.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from jaxtyping import Float, Num
from torch import Tensor

from lavibridge.core.contracts import Conditioning
from lavibridge.core.sources import read_model_json
from lavibridge.vision.hf import DiffusersModel
from lavibridge.vision.parts.padding import padding_mask
from lavibridge.vision.parts.scheduler_settings import is_edm_scheduler
from lavibridge.vision.parts.single_file import locate_configuration

_SIZES = 6
"""Number of sizes that a U-Net takes."""


class UNet(DiffusersModel):
    """UNet2DConditionModel; a family states which inputs its U-Net takes in addition to tokens."""

    denoiser_folder = "unet"
    denoiser_class = "UNet2DConditionModel"
    context_field = "cross_attention_dim"
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
    """The U-Net's `addition_embed_type`: its inputs in addition to tokens."""
    has_edm_schedule: ClassVar[bool] = False
    """Whether the U-Net was trained with the schedule of EDM (Karras et al. 2022, arXiv 2206.00364)."""
    projection: ClassVar[str | None] = None
    """The U-Net's `encoder_hid_dim_type`: how it projects tokens of another width first."""

    @classmethod
    def refusal(cls, source: str, revision: str | None = None) -> str | None:
        """As the base class, and also for a U-Net with other additional inputs, projection or schedule."""
        found = super().refusal(source, revision)
        if found is not None:
            return found
        settings = cls.settings_at(source, revision)[0]
        for name, own in (("addition_embed_type", cls.addition), ("encoder_hid_dim_type", cls.projection)):
            if settings.get(name) != own:
                return f"a U-Net with {name} '{settings.get(name)}', not '{own}'"
        root, revision = locate_configuration(source, None, revision)
        scheduler = read_model_json(root, "scheduler/scheduler_config.json", revision) or {}
        name = str(scheduler.get("_class_name", ""))
        if is_edm_scheduler(name) != cls.has_edm_schedule:
            expected = "the schedule of EDM" if cls.has_edm_schedule else "a schedule of betas or a flow"
            return f"a U-Net with {f'a {name}' if name else 'no scheduler'}, not with {expected}"
        return None

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
        """Return the U-Net's inputs in addition to tokens; None by default."""
        return None


class SizedUNet(UNet):
    """UNet2DConditionModel with `addition_embed_type: text_time`: it takes a pooled vector and sizes."""

    addition = "text_time"
    toy: ClassVar[Mapping[str, Any]] = {
        **UNet.toy,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": _SIZES * 8 + 24,
        "use_linear_projection": True,
    }

    def _additions(
        self, noisy: Float[Tensor, "batch channel h w"], conditioning: Conditioning
    ) -> dict[str, Tensor | None]:
        height, width = noisy.shape[2] * self.factor, noisy.shape[3] * self.factor
        sizes = self.alphas.new_tensor([height, width, 0, 0, height, width])
        return {"text_embeds": conditioning.pooled, "time_ids": sizes.expand(len(noisy), _SIZES)}

    def _pooled_width(self) -> int:
        settings = self.backbone.config
        return int(settings.projection_class_embeddings_input_dim - _SIZES * settings.addition_time_embed_dim)
