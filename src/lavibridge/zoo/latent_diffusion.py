"""The shared base of the miniature image models: stored latents, noise, a curriculum, and scores by the exact
checker.

    x_t = alpha_t x_0 + sigma_t e        loss = w(t) |e - e(x_t, t, caption)|^2

A tenth of the captions is empty, as in the published models. A trained text tower also answers a caption
probe (zoo/caption_probe.py). The error is weighted like the velocity's, because with so few latents the
contents of a picture are decided while it is almost all noise. A flow predicts the velocity itself.

The `CurriculumStage` of a step decides which captions it draws and how many of its times are late. The model
learns some things only in steps devoted to them, and never among all other pictures (LOG.md, 2026-11-21).
"""

from abc import abstractmethod
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from jaxtyping import Float, Int
from torch import Tensor, nn

from lavibridge.core.paths import models_folder
from lavibridge.diffusion.objective import snr
from lavibridge.diffusion.schedule import Schedule
from lavibridge.diffusion.weighting.velocity import Velocity
from lavibridge.world.captions import CaptionedScene, evaluation_prompts
from lavibridge.world.checker import check_picture
from lavibridge.zoo.caption_probe import CaptionProbe, caption_labels
from lavibridge.zoo.pretraining import Pretraining
from lavibridge.zoo.scene_pool import draw_scene_pool, sample_scene_pool, scene_pool_images

_EMPTY_CAPTIONS = 0.1
_HARD_MIX: dict[str, float] = {
    "one": 0.05,
    "plain": 0.02,
    "two": 0.08,
    "color": 0.03,
    "shape": 0.13,
    "texture": 0.13,
    "spatial": 0.05,
    "non-spatial": 0.16,
    "complex": 0.18,
    "counting": 0.10,
    "negation": 0.01,
    "long": 0.06,
}
"""Shares of the categories in the pool's second part, which the training mix mostly gives a few hundredths:
two things with one kind of attribute, interactions, three things, long captions."""
_LATE_TIMES_FROM = 0.8
"""The fraction of the schedule at which late times begin: these decide where things lie."""
_CAPTION_PROBE_WEIGHT = 0.5
"""Weight of the caption probe's loss relative to the denoiser's."""
STEPS, _GUIDANCE = 20, 4.0
_MAX_WEIGHT = 2_000.0
"""Maximum loss weight, reached at a signal of 1 in 2,000: the times beyond it are all noise, and would
otherwise take up most of a linear schedule."""
_SCORED_CATEGORIES = ("one", "two", "spatial")

MiniatureLatents = Float[Tensor, "batch 4 16 16"]


@dataclass(frozen=True, kw_only=True)
class CurriculumStage:
    """The sampling of some of a pretraining's steps."""

    steps: Container[int] = range(10**9)
    emphasis: Mapping[str, float]
    """Sampling weight of each category; 1 if it is not named."""
    place_emphasis: float = 1.0
    """Sampling weight of captions that say where in the picture a thing is, times their category's."""
    hard: bool = False
    """Whether to sample from the pool's second part (HARD_MIX) instead of the first."""
    late_every: int = 3
    """Every how many samples one has a late time. Places and numbers are decided while all is noise."""


PLACE_STAGE = CurriculumStage(
    steps=range(4_000, 6_500), emphasis={"spatial": 20.0}, place_emphasis=60.0, late_every=1
)
"""Five sixths of its pictures have captions that say where things are."""


@dataclass(frozen=True, kw_only=True)
class NoisyBatch:
    """A batch of latents at random times."""

    rows: Int[Tensor, " batch"]
    """Their indices in the pool."""
    latents: MiniatureLatents
    noise: MiniatureLatents
    t: Int[Tensor, " batch"]
    noisy: MiniatureLatents


@dataclass(frozen=True, kw_only=True)
class EncodedCaptions:
    """Captions as the denoiser reads them; without a mask it attends to all tokens."""

    tokens: Float[Tensor, "batch token width"]
    mask: Int[Tensor, "batch token"] | None = None
    pooled: Float[Tensor, "batch _"] | None = None
    binding_labels: Int[Tensor, "batch first kind"] | None = None
    """The labels of the first tokens for the probe of zoo/attribute_binding_probe.py."""


class LatentDiffusionPretraining(Pretraining):
    """Noise prediction from captions; a subclass adds the network and the text encoder."""

    draw_options: ClassVar[Mapping[str, Any]] = {}
    """Arguments of the pipeline besides prompts, steps and guidance."""
    curriculum: ClassVar[tuple[CurriculumStage, ...]]
    """The first stage that contains a step applies; the last one contains all steps."""
    questions: CaptionProbe | None = None
    """The caption probe, for a trained text tower."""
    schedule: Schedule
    """Signal and noise at each time, from the model's own scheduler."""

    def __init__(self, autoencoder: Path | None = None, pool: int = 50_000) -> None:
        torch.manual_seed(self.seed)
        folder = autoencoder or models_folder() / "mini-sd" / "vae"
        self.vae = AutoencoderKL.from_pretrained(folder).float().eval()
        self.vae.register_to_config(_name_or_path="")  # exports should not contain a local path
        self.pairs = pairs = sample_scene_pool(self.seed + 2, pool)
        if any(stage.hard for stage in self.curriculum):
            pairs += sample_scene_pool(self.seed + 5, pool, _HARD_MIX)
        hard = torch.arange(len(pairs)) >= pool
        self.emphasis = [_emphasis(stage, pairs) * (hard == stage.hard) for stage in self.curriculum]
        self.captions = ["", *(pair.caption for pair in pairs)]
        self.caption_labels = torch.tensor([caption_labels(pair.spec) for pair in pairs])
        self.means = torch.empty(len(pairs), 4, 16, 16, dtype=torch.float16)
        self.spreads = torch.empty_like(self.means)
        self.is_stored = torch.zeros(len(pairs), dtype=torch.bool)

    @abstractmethod
    def read(self, captions: list[str]) -> EncodedCaptions:
        """Encode captions."""

    @abstractmethod
    def errors(self, noised: "NoisyBatch", text: EncodedCaptions) -> Float[Tensor, " batch"]:
        """Return the loss of each picture, normally from `weighted_error`."""

    @abstractmethod
    def pipeline(self) -> DiffusionPipeline:
        """Return Diffusers' own pipeline over the networks, as it is shipped."""

    def sampling_pipeline(self) -> DiffusionPipeline:
        """Return the pipeline that draws for the scores; by default the shipped one."""
        return self.pipeline()

    def draw(self, captions: list[str], seeds: list[int]) -> Float[np.ndarray, "batch 64 64 3"]:
        """Return pictures in [0, 1]; each has its own generator, so it does not depend on its batch."""
        pipeline: Any = self.sampling_pipeline()  # each class of pipeline is called differently
        pipeline.set_progress_bar_config(disable=True)
        options = {"num_inference_steps": STEPS, "guidance_scale": _GUIDANCE, **self.draw_options}
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        drawn: np.ndarray = pipeline(captions, generator=generators, output_type="np", **options).images
        return drawn

    def times(self, even: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Map evenly spread fractions of the schedule to times that are not late."""
        return even

    def loss(self, step: int) -> Tensor:
        """Return the weighted squared error of the predicted noise, at stratified times with additional late
        ones."""
        stage = next(index for index, each in enumerate(self.curriculum) if step in each.steps)
        chosen = self.choose(self.emphasis[stage])
        latents = self.latents(chosen)
        noise = torch.randn_like(latents)
        even = (torch.arange(self.batch) + torch.rand(())) / self.batch
        is_late = torch.arange(self.batch) % self.curriculum[stage].late_every == 0
        even = torch.where(is_late, _LATE_TIMES_FROM + (1 - _LATE_TIMES_FROM) * even, self.times(even))
        t = (even * len(self.schedule.times)).long().clamp(max=len(self.schedule.times) - 1)
        kept = torch.rand(self.batch) >= _EMPTY_CAPTIONS
        captions = [self.captions[row] for row in torch.where(kept, chosen + 1, 0).tolist()]
        alpha, sigma = (
            share[t][:, None, None, None] for share in (self.schedule.alphas, self.schedule.sigmas)
        )
        noisy = alpha * latents + sigma * noise
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        text = self.read(captions)
        noised = NoisyBatch(rows=chosen, latents=latents, noise=noise, t=t, noisy=noisy)
        loss = self.errors(noised, text).mean()
        if self.questions is not None:
            loss = loss + _CAPTION_PROBE_WEIGHT * self.questions(
                text.tokens[kept], self.caption_labels[chosen[kept]]
            )
        return loss

    def choose(self, emphasis: Float[Tensor, " pair"]) -> Int[Tensor, " batch"]:
        """Sample rows of the pool for a batch, weighted by the emphasis."""
        return torch.multinomial(emphasis, self.batch)

    def latents(self, rows: Int[Tensor, " batch"]) -> MiniatureLatents:
        """Sample latents of pictures of the pool from their posteriors; each picture is encoded once."""
        missing = rows[~self.is_stored[rows]].unique()
        if len(missing):
            images = scene_pool_images(draw_scene_pool([self.pairs[row] for row in missing.tolist()]))
            with torch.no_grad():
                posterior = self.vae.encode(images).latent_dist
            self.means[missing] = posterior.mean.half()
            self.spreads[missing] = posterior.std.half()
            self.is_stored[missing] = True
        mean, spread = self.means[rows].float(), self.spreads[rows].float()
        return (mean + spread * torch.randn_like(mean)) * self.vae.config.scaling_factor

    def weighted_error(self, noised: "NoisyBatch", predicted: MiniatureLatents) -> Float[Tensor, " batch"]:
        """Return the squared error of the predicted noise, with the weight of the velocity's."""
        ratio = snr(self.schedule.alphas[noised.t], self.schedule.sigmas[noised.t])
        weights = Velocity(Velocity.Config()).weight(ratio, "epsilon")
        return weights.clamp(max=_MAX_WEIGHT) * (predicted - noised.noise).square().mean(dim=(1, 2, 3))

    def scores(self, count: int = 60) -> dict[str, float]:
        """Return the fraction of prompts drawn entirely right, and of single things with the right shape."""
        found = {}
        for category in _SCORED_CATEGORIES:
            pairs = evaluation_prompts(category, count)
            drawn = self.draw([pair.caption for pair in pairs], list(range(count)))
            pixels = (drawn * 255).round().astype("uint8")
            results = [check_picture(picture, pair.spec) for picture, pair in zip(pixels, pairs, strict=True)]
            found[category] = sum(result.all for result in results) / count
            if category == "one":
                found["shape"] = sum(bool(result["shape"]) for result in results) / count
        return found

    def restore(self, folder: Path) -> None:
        """Load every network of the pipeline, including frozen ones; the probes get new weights."""
        for name, part in self.pipeline().components.items():
            if isinstance(part, nn.Module):
                kind: Any = type(part)  # of Diffusers or of Transformers
                part.load_state_dict(kind.from_pretrained(folder / name).float().state_dict())

    def export(self, folder: Path) -> None:
        """Write a folder with `model_index.json`, in float16."""
        pipeline = self.pipeline()
        pipeline.to(torch.float16).save_pretrained(folder)
        pipeline.to(torch.float32)


def capture_outputs(layers: Mapping[str, nn.Module]) -> dict[str, Any]:
    """Return a dictionary that always holds each layer's most recent output, by name."""
    found: dict[str, Any] = {}
    for name, layer in layers.items():
        layer.register_forward_hook(lambda _layer, _in, out, name=name: found.update({name: out}))
    return found


def _emphasis(stage: CurriculumStage, pairs: Sequence[CaptionedScene]) -> Float[Tensor, " pair"]:
    """Return the sampling weight of each pair."""

    def of(pair: CaptionedScene) -> float:
        is_placed = any(group.place is not None for group in pair.spec.groups)
        return stage.emphasis.get(pair.category, 1.0) * (stage.place_emphasis if is_placed else 1.0)

    return torch.tensor([of(pair) for pair in pairs])
