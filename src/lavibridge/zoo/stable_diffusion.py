"""`mini-sd`: a Stable Diffusion of 64 x 64 pictures, published layout (Rombach et al., arXiv 2112.10752).

The text tower starts as `mini-clip`'s and trains with the U-Net: so small a CLIP hardly distinguishes shapes,
and its frozen features kept the U-Net from learning them (docs/decisions/0004). The U-Net attends to padding,
as in the published models.
"""

from pathlib import Path

import torch
from diffusers import (
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
)
from jaxtyping import Float
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from lavibridge.core.paths import models_folder
from lavibridge.diffusion.schedule import diffusion_schedule
from lavibridge.zoo.caption_probe import CaptionProbe
from lavibridge.zoo.latent_diffusion import (
    PLACE_STAGE,
    CurriculumStage,
    EncodedCaptions,
    LatentDiffusionPretraining,
    NoisyBatch,
)

STABLE_DIFFUSION_SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.02,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}
"""The schedule of Stable Diffusion 1.4 with another end. With the original end of 0.012, 70 % of noised
images still showed at the last time in which half a thing was, and the network never learned to read it from
the caption (docs/decisions/0008)."""
_SAMPLER = {"set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1}
"""The settings of Stable Diffusion's own sampler."""


def _build(width: int = 128) -> UNet2DConditionModel:
    """Return the U-Net with fresh weights: 16 x 16 latents, attention at 8 x 8 and 4 x 4.

    The last level distinguishes places: at 4 x 4 every position is near an edge, and a U-Net knows positions
    only by the zero padding of the edges.
    """
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 96, 96),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=16,
        attention_head_dim=4,  # the number of heads, by a historical misnomer of the class
        cross_attention_dim=width,
    )


class StableDiffusionPretraining(LatentDiffusionPretraining):
    """Trains the U-Net together with its text tower."""

    name = "mini-sd"
    steps = 70_000
    curriculum = (
        PLACE_STAGE,
        CurriculumStage(
            steps=frozenset((*range(33_500, 34_400), *range(36_000, 37_500, 2))),
            emphasis={"counting": 30.0},
            late_every=1,
        ),
        CurriculumStage(steps=range(11_000), emphasis={"one": 3.0}, place_emphasis=20.0),
        CurriculumStage(
            steps=range(37_500), emphasis={"two": 1.5, "spatial": 3.0, "counting": 2.0}, place_emphasis=20.0
        ),
        CurriculumStage(emphasis={}, hard=True),
    )
    batch = 32
    lr = 1.5e-3

    def __init__(self, autoencoder: Path | None = None, clip: Path | None = None, pool: int = 50_000) -> None:
        super().__init__(autoencoder, pool)
        folder = clip or models_folder() / "mini-clip"
        self.text = CLIPTextModel.from_pretrained(folder).float()
        self.tokenizer = CLIPTokenizer.from_pretrained(folder)
        self.unet = _build(self.text.config.hidden_size).to(memory_format=torch.channels_last)
        self.questions = CaptionProbe(self.text.config.hidden_size)
        self.networks = nn.ModuleDict({"unet": self.unet, "text": self.text, "questions": self.questions})
        self.schedule = diffusion_schedule(PNDMScheduler(**STABLE_DIFFUSION_SCHEDULE).alphas_cumprod)

    def read(self, captions: list[str]) -> EncodedCaptions:
        """Return the text tower's last layer, with padding visible."""
        ids = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        return EncodedCaptions(tokens=self.text(input_ids=ids["input_ids"]).last_hidden_state)

    def errors(self, noised: NoisyBatch, text: EncodedCaptions) -> Float[Tensor, " batch"]:
        """Return the error of the U-Net's output."""
        predicted = self.unet(noised.noisy, noised.t, encoder_hidden_states=text.tokens).sample
        return self.weighted_error(noised, predicted)

    def sampling_pipeline(self) -> StableDiffusionPipeline:
        """Return the pipeline with UniPC, which needs fewer steps than the shipped sampler."""
        pipeline = self.pipeline()
        pipeline.scheduler = UniPCMultistepScheduler(**STABLE_DIFFUSION_SCHEDULE)
        return pipeline

    def pipeline(self) -> StableDiffusionPipeline:
        """Return the pipeline with the published sampler."""
        return StableDiffusionPipeline(
            vae=self.vae,
            text_encoder=self.text,
            tokenizer=self.tokenizer,
            unet=self.unet,
            scheduler=PNDMScheduler(**STABLE_DIFFUSION_SCHEDULE, **_SAMPLER),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
