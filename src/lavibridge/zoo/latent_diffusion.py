"""What the miniature image models share: stored latents, a loss, and scores by the exact checker.

    x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) e        loss = w(t) |e - e(x_t, t, caption)|^2

A tenth of the captions is empty, as in the published models. A text tower that learns along also answers what
its captions tell (zoo/told.py). The error is weighted as if it were the
velocity's: on so few latents, what is in the picture is decided while it is almost all noise.
"""

from abc import abstractmethod
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from jaxtyping import Float, Int
from torch import Tensor

from lavibridge.core.files import models_folder
from lavibridge.core.log import progress
from lavibridge.diffusion.objective import snr, weight
from lavibridge.world.captions import Pair, prompts
from lavibridge.world.checker import check
from lavibridge.zoo.pool import as_images, make_pairs, pictures
from lavibridge.zoo.pretraining import Pretraining
from lavibridge.zoo.told import Questions, told

EMPTY_CAPTIONS = 0.1
FIRST = {"one": 3.0}
LATER = {"two": 1.5, "spatial": 3.0, "counting": 2.0}
"""How many times as often a picture of a category is drawn: shapes are learnt from single things first."""
PLACED = 20.0
"""The same for captions that say where in the picture a thing is."""
PLACING, PLACING_PLACED = {"spatial": 20.0}, 60.0
"""The same while places and directions are learnt: five sixths of the pictures are of such captions."""
NUMBERS = {"counting": 30.0}
"""The same while numbers are learnt."""
LATE = 0.8
"""Where late times begin, as a share of the schedule: there it is decided what lies where."""
ASKED = 0.5
"""Weight of the questions beside the denoiser's loss."""
STEPS, GUIDANCE = 20, 4.0
MOST_WEIGHT = 2_000.0
"""Reached at a signal of 1 in 2,000: what lies beyond is noise to anybody, and would take most of a linear
schedule's times."""
SCORED = ("one", "two", "spatial")

Latents = Float[Tensor, "batch 4 16 16"]


@dataclass(frozen=True, kw_only=True)
class Noised:
    """A batch of latents at random times."""

    rows: Int[Tensor, " batch"]
    """Which pairs of the pool they are."""
    latents: Latents
    noise: Latents
    t: Int[Tensor, " batch"]
    noisy: Latents


@dataclass(frozen=True, kw_only=True)
class Text:
    """Captions as the denoiser gets them; without a mask all tokens are seen."""

    tokens: Float[Tensor, "batch token width"]
    mask: Int[Tensor, "batch token"] | None = None
    belongs: Int[Tensor, "batch token kind"] | None = None
    """Where words are asked what they belong to: the answers (zoo/belongs.py)."""


class LatentDiffusionPretraining(Pretraining):
    """Noise prediction under captions; the subclass knows the network and the text."""

    draw_options: ClassVar[Mapping[str, Any]] = {}
    """What the pipeline is called with besides prompts, steps and guidance."""
    singles_until: int = 8_000
    """The step from which the harder categories are drawn more often."""
    later_emphasis: ClassVar[Mapping[str, float]] = LATER
    """How many times as often a category is drawn from then on."""
    later_placed: float = PLACED
    """The same for captions that say where a thing is."""
    placing: range = range(4_000, 6_500)
    """The steps in which places and directions are learnt: among all other pictures and times they never
    were, by themselves they were after 1,600 steps."""
    late_every: int = 3
    """Every which time is a late one; while places or numbers are learnt, all are (LOG.md, 2026-11-21)."""
    numbers: Container[int] = ()
    """The steps in which numbers are learnt."""
    questions: Questions | None = None
    """For a text tower that learns along."""
    alpha_bar: Float[Tensor, " time"]
    """Share of the picture's variance that is left at each time, from the model's own schedule."""

    def __init__(self, autoencoder: Path | None = None, pool: int = 50_000) -> None:
        torch.manual_seed(self.seed)
        folder = autoencoder or models_folder() / "mini-sd" / "vae"
        self.vae = AutoencoderKL.from_pretrained(folder).float().eval()
        self.vae.register_to_config(_name_or_path="")  # a path of this machine, which exports would carry on
        self.pairs = pairs = make_pairs(self.seed + 2, pool)
        self.first, self.later, self.of_places, self.of_numbers = (
            torch.tensor(
                [emphasis.get(pair.category, 1.0) * (placed if _is_placed(pair) else 1.0) for pair in pairs]
            )
            for emphasis, placed in (
                (FIRST, PLACED),
                (self.later_emphasis, self.later_placed),
                (PLACING, PLACING_PLACED),
                (NUMBERS, 1.0),
            )
        )
        self.captions = ["", *(pair.caption for pair in pairs)]
        self.told = torch.tensor([told(pair.spec) for pair in pairs])
        means, spreads = [], []
        with torch.no_grad(), progress("batches") as bar:
            task = bar.add_task("store latents", total=-(-pool // 100), status="")
            for start in range(0, pool, 100):
                posterior = self.vae.encode(as_images(pictures(pairs[start : start + 100]))).latent_dist
                means.append(posterior.mean.half())
                spreads.append(posterior.std.half())
                bar.advance(task)
        self.means, self.spreads = torch.cat(means), torch.cat(spreads)

    @abstractmethod
    def read(self, captions: list[str]) -> Text:
        """What the text model makes of captions."""

    @abstractmethod
    def errors(self, noised: "Noised", text: Text) -> Float[Tensor, " batch"]:
        """The loss of each picture; `weighted_error` is what it is made of."""

    @abstractmethod
    def pipeline(self) -> DiffusionPipeline:
        """Diffusers' own pipeline over the networks, as it is shipped."""

    def sampling_pipeline(self) -> DiffusionPipeline:
        """The pipeline that scores are drawn with, where that is not the shipped one."""
        return self.pipeline()

    def draw(self, captions: list[str], seeds: list[int]) -> Float[np.ndarray, "batch 64 64 3"]:
        """Pictures in [0, 1]; each has a generator of its own, so it does not depend on its batch."""
        pipeline: Any = self.sampling_pipeline()  # each class of pipeline is called differently
        pipeline.set_progress_bar_config(disable=True)
        options = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, **self.draw_options}
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        drawn: np.ndarray = pipeline(captions, generator=generators, output_type="np", **options).images
        return drawn

    def times(self, even: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Times that are not late, as shares of the schedule, from evenly spread ones."""
        return even

    def loss(self, step: int) -> Tensor:
        """Weighted squared error of the predicted noise; times are spread, more of them late."""
        emphasis, late_every = self._lesson(step)
        chosen = torch.multinomial(emphasis, self.batch)
        mean, spread = self.means[chosen].float(), self.spreads[chosen].float()
        latents = (mean + spread * torch.randn_like(mean)) * self.vae.config.scaling_factor
        noise = torch.randn_like(latents)
        even = (torch.arange(self.batch) + torch.rand(())) / self.batch
        is_late = torch.arange(self.batch) % late_every == 0
        even = torch.where(is_late, LATE + (1 - LATE) * even, self.times(even))
        t = (even * len(self.alpha_bar)).long().clamp(max=len(self.alpha_bar) - 1)
        kept = torch.rand(self.batch) >= EMPTY_CAPTIONS
        captions = [self.captions[row] for row in torch.where(kept, chosen + 1, 0).tolist()]
        alpha_bar = self.alpha_bar[t][:, None, None, None]
        noisy = alpha_bar.sqrt() * latents + (1 - alpha_bar).sqrt() * noise
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        text = self.read(captions)
        noised = Noised(rows=chosen, latents=latents, noise=noise, t=t, noisy=noisy)
        loss = self.errors(noised, text).mean()
        if self.questions is not None:
            loss = loss + ASKED * self.questions(text.tokens[kept], self.told[chosen[kept]])
        return loss

    def _lesson(self, step: int) -> tuple[Float[Tensor, " pair"], int]:
        """How often each picture is drawn in a step, and which of its times are late: every which one."""
        if step in self.placing:
            return self.of_places, 1
        if step in self.numbers:
            return self.of_numbers, 1
        return (self.later if step >= self.singles_until else self.first), self.late_every

    def weighted_error(self, noised: "Noised", predicted: Latents) -> Float[Tensor, " batch"]:
        """Squared error of the predicted noise, as much worth as the velocity's."""
        share = self.alpha_bar[noised.t]
        weights = weight("velocity", 0.0, snr(share.sqrt(), (1 - share).sqrt()), "epsilon")
        return weights.clamp(max=MOST_WEIGHT) * (predicted - noised.noise).square().mean(dim=(1, 2, 3))

    def scores(self, count: int = 60) -> dict[str, float]:
        """By the exact checker, the share of prompts drawn all right, and of one thing its shape right."""
        found = {}
        for category in SCORED:
            pairs = prompts(category, count)
            drawn = self.draw([pair.caption for pair in pairs], list(range(count)))
            pixels = (drawn * 255).round().astype("uint8")
            verdicts = [check(picture, pair.spec) for picture, pair in zip(pixels, pairs, strict=True)]
            found[category] = sum(verdict.all for verdict in verdicts) / count
            if category == "one":
                found["shape"] = sum(bool(verdict["shape"]) for verdict in verdicts) / count
        return found

    def export(self, folder: Path) -> None:
        """A folder with `model_index.json`, in float16."""
        pipeline = self.pipeline()
        pipeline.to(torch.float16).save_pretrained(folder)
        pipeline.to(torch.float32)


def _is_placed(pair: Pair) -> bool:
    return any(group.place is not None for group in pair.spec.groups)
