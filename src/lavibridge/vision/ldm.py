"""The first text-to-image latent diffusion model: a U-Net, with its autoencoder in ``vqvae/``.

Rombach et al. 2022, arXiv 2112.10752. LoRA as in LaVi-Bridge.
"""

from lavibridge.core.text_encoders import PipelineTextEncoders, TextEncoder
from lavibridge.vision.parts.unet import UNet


class LatentDiffusion(UNet):
    """UNet2DConditionModel and an AutoencoderKL in ``vqvae/``, as LDMTextToImagePipeline saves them."""

    pipeline_class = "StableDiffusionPipeline"
    text = PipelineTextEncoders(sequence=((TextEncoder(folder="bert", max_tokens=77),),))
    autoencoder_folder = "vqvae"
    default_guidance_scale = 6.0  # from its model card; the pipeline's own default of 1 disables guidance
    published_lr = {"language_lora": 5e-6, "connector": 1e-4, "vision_lora": 1e-4}  # noqa: RUF012
