"""`mini-sd`: a Stable Diffusion of 64 x 64 pictures, published layout (Rombach et al., arXiv 2112.10752).

The U-Net predicts noise in the autoencoder's latents under `mini-clip`'s text tower, which stays frozen; pads
are attended to and a tenth of the captions is empty, as in the published models. Its error is weighted as if
it predicted the velocity: on so few latents, what is in the picture is decided while it is almost all noise.
"""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
)
from jaxtyping import Float
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from lavibridge.core.files import models_folder
from lavibridge.core.log import progress
from lavibridge.diffusion.objective import snr, weight
from lavibridge.world.captions import prompts
from lavibridge.world.checker import check
from lavibridge.zoo.pool import as_images, make_pairs, pictures
from lavibridge.zoo.pretraining import Pretraining

EMPTY_CAPTIONS = 0.1
EMPHASIS = 3.0
"""How many times as often a picture of one thing is drawn: shapes are learnt from it first."""
SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}
"""The noise schedule and sampler settings of Stable Diffusion 1.4."""


def build(width: int = 128) -> UNet2DConditionModel:
    """The U-Net with fresh weights: 16 x 16 latents, attention at 8 x 8 only."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 96),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=16,
        attention_head_dim=4,  # the number of heads, by a historical misnomer of the class
        cross_attention_dim=width,
    )


class StableDiffusionPretraining(Pretraining):
    """Noise prediction on stored latents and stored text features."""

    name = "mini-sd"
    steps = 6000
    batch = 32
    lr = 1.5e-3

    def __init__(self, autoencoder: Path | None = None, clip: Path | None = None, pool: int = 30_000) -> None:
        torch.manual_seed(self.seed)
        clip_folder = clip or models_folder() / "mini-clip"
        vae_folder = autoencoder or models_folder() / "mini-sd" / "vae"
        self.vae = AutoencoderKL.from_pretrained(vae_folder).float().eval()
        self.vae.register_to_config(_name_or_path="")  # a path of this machine, which exports would carry on
        self.text = CLIPTextModel.from_pretrained(clip_folder).float().eval()
        self.tokenizer = CLIPTokenizer.from_pretrained(clip_folder)
        self.network = build(self.text.config.hidden_size).to(memory_format=torch.channels_last)
        self.networks = nn.ModuleDict({"unet": self.network})
        self.scheduler = PNDMScheduler(**SCHEDULE)
        self.alpha_bar = self.scheduler.alphas_cumprod
        pairs = make_pairs(self.seed + 2, pool)
        with torch.no_grad(), progress("batches") as bar:
            task = bar.add_task("store latents and text features", total=-(-pool // 100) + 1, status="")
            means, spreads, features = [], [], [self._features([""])]
            for start in range(0, pool, 100):
                part = pairs[start : start + 100]
                posterior = self.vae.encode(as_images(pictures(part))).latent_dist
                means.append(posterior.mean.half())
                spreads.append(posterior.std.half())
                features.append(self._features([pair.caption for pair in part]).half())
                bar.advance(task)
        self.shares = torch.tensor([EMPHASIS if pair.category == "one" else 1.0 for pair in pairs])
        self.means, self.spreads = torch.cat(means), torch.cat(spreads)
        self.features = torch.cat([feature.half() for feature in features])

    def loss(self, step: int) -> Tensor:
        """Weighted squared error of the predicted noise; times are spread evenly over the batch."""
        chosen = torch.multinomial(self.shares, self.batch)
        mean, spread = self.means[chosen].float(), self.spreads[chosen].float()
        latents = (mean + spread * torch.randn_like(mean)) * self.vae.config.scaling_factor
        noise = torch.randn_like(latents)
        even = (torch.arange(self.batch) + torch.rand(())) / self.batch
        t = (even * len(self.alpha_bar)).long().clamp(max=len(self.alpha_bar) - 1)
        noisy = self.scheduler.add_noise(latents, noise, t).contiguous(memory_format=torch.channels_last)
        kept = torch.rand(self.batch) >= EMPTY_CAPTIONS
        context = self.features[torch.where(kept, chosen + 1, 0)].float()  # row 0 holds the empty caption
        predicted = self.network(noisy, t, encoder_hidden_states=context).sample
        alpha_bar = self.alpha_bar[t]
        weights = weight("velocity", 0.0, snr(alpha_bar), "epsilon")
        return (weights * (predicted - noise).square().mean(dim=(1, 2, 3))).mean()

    def scores(self, count: int = 60) -> dict[str, float]:
        """Share of prompts drawn all right, by the exact checker: one thing, two things, a direction."""
        pipeline = self._pipeline(fast=True)
        found = {}
        for category in ("one", "two", "spatial"):
            pairs = prompts(category, count)
            drawn = pipeline(
                [pair.caption for pair in pairs],
                num_inference_steps=20,
                guidance_scale=4.0,
                generator=[torch.Generator().manual_seed(i) for i in range(count)],
                output_type="np",
            ).images
            drawn = (drawn * 255).round().astype("uint8")
            verdicts = [check(picture, pair.spec) for picture, pair in zip(drawn, pairs, strict=True)]
            found[category] = sum(verdict.all for verdict in verdicts) / count
        return found

    def export(self, folder: Path) -> None:
        """A Stable Diffusion folder with `model_index.json`."""
        pipeline = self._pipeline(fast=False)
        pipeline.to(torch.float16).save_pretrained(folder)
        pipeline.to(torch.float32)

    def _pipeline(self, *, fast: bool) -> StableDiffusionPipeline:
        pipeline = StableDiffusionPipeline(
            vae=self.vae,
            text_encoder=self.text,
            tokenizer=self.tokenizer,
            unet=self.network,
            scheduler=UniPCMultistepScheduler(**_common(SCHEDULE)) if fast else self.scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _features(self, captions: list[str]) -> Float[Tensor, "batch token width"]:
        ids = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")[
            "input_ids"
        ]
        hidden: Tensor = self.text(input_ids=ids).last_hidden_state
        return hidden


def _common(schedule: dict[str, object]) -> dict[str, object]:
    """The settings that every sampler of Diffusers knows."""
    return {
        key: value
        for key, value in schedule.items()
        if key.startswith("beta") or key == "num_train_timesteps"
    }
