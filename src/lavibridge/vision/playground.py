"""Playground v2.5: the U-Net of Stable Diffusion XL, trained with the schedule of EDM.

    s_t             standard deviation of the noise at time t = 0, 1, ..., T - 1
    U-Net(x, ln(s_t) / 4)  ->  -v or v              x: latents of unit variance and noise

Its autoencoder states the mean and the deviation of each channel. Other U-Nets of this kind, such as CosXL,
open likewise.

Li et al. 2024, arXiv 2402.17245; the schedule: Karras et al. 2022, arXiv 2206.00364. LoRA and its learning
rate as in the training script of Diffusers: the linear layers of attention.
"""

from jaxtyping import Float, Num
from torch import Tensor

from lavibridge.core.contracts import Conditioning
from lavibridge.vision.hf import Statistic
from lavibridge.vision.parts.published import CLIP_G, CLIP_L, SDXL_AUTOENCODER, SDXL_UNET, PublishedModel
from lavibridge.vision.parts.scheduler_settings import edm_noise
from lavibridge.vision.parts.toys import TOY_AUTOENCODER
from lavibridge.vision.parts.unet import SizedUNet
from lavibridge.vision.sdxl import StableDiffusionXL

_CHANNELS = {
    "latents_mean": (-1.6574, 1.886, -1.383, 2.5155),
    "latents_std": (8.4927, 5.9022, 6.5498, 5.2299),
    "scaling_factor": 0.5,
}
_SCHEDULER = {"_class_name": "EDMDPMSolverMultistepScheduler"}


class Playground(SizedUNet):
    """UNet2DConditionModel with `addition_embed_type: text_time` and an EDM scheduler."""

    has_edm_schedule = True
    pipeline_class = None  # that of Stable Diffusion XL knows its U-Net only with its own scheduler
    text = StableDiffusionXL.text
    default_guidance_scale = 3.0
    lora_targets = StableDiffusionXL.lora_targets
    published_lr = {"vision_lora": 1e-4}  # noqa: RUF012 - a constant of the class
    toy_autoencoder = {**TOY_AUTOENCODER, **_CHANNELS}  # noqa: RUF012
    toy_scheduler = _SCHEDULER
    toy_pipelines = {  # noqa: RUF012
        "StableDiffusionXLPipeline": {
            "text_encoder": {"_class_name": "CLIPTextModel", "hidden_size": 16},
            "text_encoder_2": {
                "_class_name": "CLIPTextModelWithProjection",
                "hidden_size": 32,
                "projection_dim": 24,
            },
        }
    }
    published = {  # noqa: RUF012
        "playgroundai/playground-v2.5-1024px-aesthetic": PublishedModel(
            pipeline="StableDiffusionXLPipeline",
            denoiser=SDXL_UNET,
            autoencoder={**SDXL_AUTOENCODER, **_CHANNELS},
            scheduler=_SCHEDULER,
            text_encoders={
                "text_encoder": {"_class_name": "CLIPTextModel", **CLIP_L},
                "text_encoder_2": {"_class_name": "CLIPTextModelWithProjection", **CLIP_G},
            },
        )
    }

    def _call(
        self,
        noisy: Float[Tensor, "batch channel h w"],
        t: Num[Tensor, " batch"],
        conditioning: Conditioning,
    ) -> Float[Tensor, "batch channel h w"]:
        settings = self.scheduler.config
        levels = edm_noise(self.scheduler).at(t.float() / (settings.num_train_timesteps - 1))
        output = super()._call(noisy, levels.log() / 4, conditioning)
        return -output if settings.prediction_type == "epsilon" else output

    def _shift_and_scale(self) -> tuple[Statistic, Statistic]:
        """As the base class, with latents of unit variance."""
        shift, scale = super()._shift_and_scale()
        return shift, scale / edm_noise(self.scheduler).latents
