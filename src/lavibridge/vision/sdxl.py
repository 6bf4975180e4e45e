"""Stable Diffusion XL: a U-Net that is also told a pooled vector of the prompt and the picture's sizes.

    beside the tokens: [pooled | (height, width) of the original, (top, left) of the crop, (height, width)]

The original is told to be as large as the picture and not cropped, as its pipeline does by default.

Podell et al. 2023, arXiv 2307.01952. LoRA as in the Diffusers library's training scripts: attention linears.
"""

from jaxtyping import Float
from torch import Tensor

from lavibridge.core.contracts import Conditioning
from lavibridge.core.text_sides import TextEncoder, TextSide
from lavibridge.vision.parts.unet import UNet

_CLIP_L = TextEncoder(layer=-2)
_CLIP_G = TextEncoder(folder="text_encoder_2", tokenizer="tokenizer_2", layer=-2)
_SIZES = 6
"""How many numbers it is told of sizes."""


class StableDiffusionXL(UNet):
    """UNet2DConditionModel with `addition_embed_type: text_time`."""

    pipeline_class = "StableDiffusionXLPipeline"
    text = TextSide(sequence=((_CLIP_L, _CLIP_G),), pooled=(_CLIP_G,))
    addition = "text_time"
    default_guidance = 5.0
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
