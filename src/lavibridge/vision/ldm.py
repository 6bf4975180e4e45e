"""The first latent diffusion model that draws from text: a U-Net; its autoencoder lies in ``vqvae/``.

Rombach et al. 2022, arXiv 2112.10752. LoRA as in LaVi-Bridge.
"""

from lavibridge.core.text_sides import TextEncoder, TextSide
from lavibridge.vision.parts.unet import UNet


class LatentDiffusion(UNet):
    """UNet2DConditionModel beside an AutoencoderKL in ``vqvae/``, as LDMTextToImagePipeline saves them."""

    pipeline_class = "StableDiffusionPipeline"
    text = TextSide(sequence=((TextEncoder(folder="bert", max_tokens=77),),))
    autoencoder_folder = "vqvae"
    default_guidance = 6.0  # of its model card; the pipeline itself has 1, which is none
    published_lr = {"language_lora": 5e-6, "connector": 1e-4, "vision_lora": 1e-4}  # noqa: RUF012
