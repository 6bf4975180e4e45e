"""Stable Diffusion XL: a U-Net that also takes a pooled vector of the prompt and the sizes of the image.

Podell et al. 2023, arXiv 2307.01952. LoRA and its learning rate as in the training scripts of Diffusers: the
linear layers of attention.
"""

from lavibridge.core.text_encoders import PipelineTextEncoders, TextEncoder
from lavibridge.vision.parts.unet import SizedUNet

_CLIP_L = TextEncoder(layers=(-2,))
_CLIP_G = TextEncoder(folder="text_encoder_2", tokenizer="tokenizer_2", layers=(-2,))


class StableDiffusionXL(SizedUNet):
    """UNet2DConditionModel with `addition_embed_type: text_time`."""

    pipeline_class = "StableDiffusionXLPipeline"
    text = PipelineTextEncoders(sequence=((_CLIP_L, _CLIP_G),), pooled=(_CLIP_G,))
    default_guidance_scale = 5.0
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    published_lr = {"vision_lora": 1e-4}  # noqa: RUF012 - a constant of the class
