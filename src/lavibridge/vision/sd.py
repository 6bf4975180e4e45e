"""Stable Diffusion 1 and 2: a U-Net with cross-attention.

Rombach et al. 2022, arXiv 2112.10752. The scale of its tokens is MetaQuery's (Pan et al. 2025, arXiv
2504.06256); the learning rates are those of LaVi-Bridge (Zhao et al. 2024, arXiv 2403.07860).
"""

from lavibridge.core.text_encoders import PipelineTextEncoders, TextEncoder
from lavibridge.vision.parts.unet import UNet


class StableDiffusion(UNet):
    """UNet2DConditionModel without additional inputs."""

    pipeline_class = "StableDiffusionPipeline"
    text = PipelineTextEncoders(sequence=((TextEncoder(),),))
    rms = 1.0
    default_guidance_scale = 7.5
    published_lr = {"language_lora": 5e-6, "connector": 1e-4, "vision_lora": 1e-4}  # noqa: RUF012
