"""Stable Diffusion XL: a U-Net that also takes a pooled vector of the prompt and the sizes of the image.

    additional inputs: [pooled | (height, width) of the original, (top, left) of the crop, (height, width)]

The sizes say that the original is as large as the image and not cropped, as in its pipeline by default.

Podell et al. 2023, arXiv 2307.01952. LoRA as in the training scripts of Diffusers: the linear layers of
attention.
"""

from jaxtyping import Float
from torch import Tensor

from lavibridge.core.contracts import Conditioning
from lavibridge.core.text_encoders import PipelineTextEncoders, TextEncoder
from lavibridge.vision.parts.unet import UNet

_CLIP_L = TextEncoder(layers=(-2,))
_CLIP_G = TextEncoder(folder="text_encoder_2", tokenizer="tokenizer_2", layers=(-2,))
_SIZES = 6
"""Number of sizes that the U-Net takes."""


class StableDiffusionXL(UNet):
    """UNet2DConditionModel with `addition_embed_type: text_time`."""

    pipeline_class = "StableDiffusionXLPipeline"
    text = PipelineTextEncoders(sequence=((_CLIP_L, _CLIP_G),), pooled=(_CLIP_G,))
    addition = "text_time"
    default_guidance_scale = 5.0
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    toy = {  # noqa: RUF012 - a constant of the class
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
