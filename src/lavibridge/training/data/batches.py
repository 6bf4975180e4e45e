"""The loop's data loader: it makes a batch with noise and timesteps for each pass of each step.

step, pass, process, place in the batch  ->  position  ->  index, caption, noise, t
"""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lavibridge.core.contracts import Batch
from lavibridge.core.seeds import mix_seeds
from lavibridge.data.base import Dataset
from lavibridge.recipes.sections import component_of_section
from lavibridge.recipes.training_section import TIMESTEPS, TrainingSection
from lavibridge.training.cache.caches import Caches, cache_latents_in_memory
from lavibridge.training.data.order import rng_for_visit
from lavibridge.training.data.sampler import VisitSampler
from lavibridge.training.reporting.timing import FEATURES
from lavibridge.vision.base import VisionModel

_TAGS = 4
"""Stream of the random numbers that edit a visit's caption."""


@dataclass(frozen=True, kw_only=True)
class TrainingPass:
    """One pass: the arguments of `Bridge.forward`."""

    batch: Batch
    t: Int[Tensor, " batch"]
    noise: Float[Tensor, "batch channel h w"]


class BatchLoader:
    """Loads batches by step; process number `process` of `processes` gets its share of each."""

    def __init__(
        self,
        dataset: Dataset,
        vision: VisionModel,
        settings: TrainingSection,
        size: tuple[int, int],
        process: int = 0,
        processes: int = 1,
        caches: Caches | None = None,
    ) -> None:
        self.dataset = dataset
        self.vision = vision
        self.settings = settings
        self.process = process
        self.processes = processes
        self.device = vision.alphas.device
        self.times = len(vision.alphas)
        self.sampling = component_of_section(TIMESTEPS, settings.timestep_sampling)
        self.visits = VisitSampler(dataset, settings.seed, size, vision.unit, settings.batch * processes)
        # Without a bridge's caches, cache latents in memory and no features.
        self.caches = caches or Caches(latents=cache_latents_in_memory(dataset, vision, settings))
        self.timing = self.caches.latents.timing

    def close(self) -> None:
        """Write the caches' pending entries."""
        self.caches.close()

    @property
    def pictures_per_step(self) -> int:
        """Samples per step, over all passes and processes."""
        return self.settings.batch * self.settings.accumulate * self.processes

    def draw(self, step: int, turn: int) -> TrainingPass:
        """Load pass number `turn` of step number `step`, both counted from 0."""
        size = self.settings.batch
        start = ((step * self.settings.accumulate + turn) * self.processes + self.process) * size
        positions = range(start, start + size)
        visits, samples = zip(*self.visits.at(positions), strict=True)
        shape = self.vision.latent_shape(*visits[0].size)
        chances = [rng_for_visit(self.settings.seed, position, shape) for position in positions]
        prompts = [
            ""
            if one.drop < self.settings.caption_dropout
            else self.dataset.visit_caption(
                visit.index,
                sample.captions[int(one.caption * len(sample.captions))],
                mix_seeds(self.settings.seed, position, _TAGS),
            )
            for position, visit, sample, one in zip(positions, visits, samples, chances, strict=True)
        ]
        mean, std = self.caches.latents.moments(visits)
        drawn = torch.stack([one.latent for one in chances]).to(mean.device)
        features = None
        if self.caches.features is not None:
            with self.timing.on(FEATURES):
                features = self.caches.features.of(prompts, self.device)
        return TrainingPass(
            batch=Batch(
                prompts=tuple(prompts),
                names=tuple(sample.name for sample in samples),
                latents=(mean + std * drawn).to(self.device),
                features=features,
            ),
            t=torch.tensor(
                [self.sampling.timestep(one.time, self.times) for one in chances], device=self.device
            ),
            noise=torch.stack([one.noise for one in chances]).to(self.device),
        )


class PrefetchLoader(BatchLoader):
    """Loads the same batches, and prefetches the next pass in a thread during the current one."""

    def __init__(
        self,
        dataset: Dataset,
        vision: VisionModel,
        settings: TrainingSection,
        size: tuple[int, int],
        process: int = 0,
        processes: int = 1,
        caches: Caches | None = None,
    ) -> None:
        super().__init__(dataset, vision, settings, size, process, processes, caches)
        # One worker: only this thread fills the caches, and requests out of order wait for it.
        self.worker = ThreadPoolExecutor(max_workers=1)
        self.coming: dict[tuple[int, int], Future[TrainingPass]] = {}

    def draw(self, step: int, turn: int) -> TrainingPass:
        """Return the requested pass, and start loading the one after it."""
        asked = self.coming.get((step, turn)) or self.worker.submit(super().draw, step, turn)
        made = asked.result()
        is_last = turn + 1 == self.settings.accumulate
        following = (step + 1, 0) if is_last else (step, turn + 1)
        self.coming = {following: self.worker.submit(super().draw, *following)}
        return made

    def close(self) -> None:
        """End the thread, and write the caches' pending entries."""
        self.worker.shutdown(cancel_futures=True)
        super().close()
