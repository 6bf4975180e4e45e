"""Takes the steps of an alignment: features of captions, the objective's fvu, an update of the connector."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lavibridge.alignment.base import NoisedLatents
from lavibridge.alignment.parts.variance import mean_token
from lavibridge.bridge import Bridge
from lavibridge.core.contracts import TextFeatures
from lavibridge.core.errors import ModelError, NotFiniteError, RecipeError
from lavibridge.core.seeds import mix_seeds
from lavibridge.recipes.sections import read_kind_section
from lavibridge.recipes.training_section import OPTIMIZERS, AlignmentSection, CacheSection, TrainingSection
from lavibridge.training.alignment.captions import AlignmentCaptions
from lavibridge.training.alignment.noised_latents import noised_data, sampled_latents
from lavibridge.training.alignment.objective import AlignmentMethod
from lavibridge.training.alignment.teacher import SETTING, open_teacher
from lavibridge.training.cache.feature_reader import FeatureReader, feature_reader
from lavibridge.training.data.batches import BatchLoader
from lavibridge.training.data.order import ShuffledOrder
from lavibridge.training.distributed.processes import Processes
from lavibridge.training.loop import TrainingState, gradient_norms, update_weights
from lavibridge.training.optimization import make_optimizer

OPTIMIZER = read_kind_section(OPTIMIZERS, "muon")
"""AdamW needs twice as many steps for the same loss (LOG.md, 2026-11-22)."""
EPOCHS, MEASURED = 1, 4
"""Mixed with the seed to keep these random numbers apart from others."""
Reader = Callable[[Sequence[str]], TextFeatures]


class Aligner:
    """Aligns a bridge with its teacher, step by step."""

    def __init__(
        self,
        bridge: Bridge,
        method: AlignmentMethod,
        captions: AlignmentCaptions,
        training: TrainingSection,
        processes: Processes | None = None,
    ) -> None:
        """Open the teacher.

        Raises ModelError if the teacher cannot be used, and RecipeError if the processes cannot share a batch
        equally.
        """
        settings = training.align
        assert settings is not None  # the caller has checked it
        self.bridge, self.method, self.captions = bridge, method, captions
        self.objective = method.objective
        self.settings, self.seed, self.training = settings, training.seed, training
        self.processes = processes
        count = 1 if processes is None else processes.count
        if settings.batch % count:
            raise RecipeError(
                f"{count} processes cannot share {SETTING}.batch, which is {settings.batch}, equally: choose "
                f"a multiple of {count}"
            )
        self.state = alignment_state(bridge, settings)
        self.teacher = open_teacher(bridge, settings)
        bridge.connector.continue_from(self.teacher.connector)
        limit, is_main = settings.feature_cache_gb, processes is None or processes.is_main
        self.read = _student_reader(bridge, limit, training.cache, is_main)
        self.read_teacher = feature_reader(self.teacher, limit, training.cache, is_main)
        self.order = ShuffledOrder(len(captions.training), mix_seeds(training.seed, EPOCHS))

    def read_captions(self, stopped: Callable[[], bool]) -> None:
        """Read every caption with both text sides, or as many as come before ``stopped``."""
        for read in (self.read, self.read_teacher):
            if isinstance(read, FeatureReader) and not stopped():
                read.read_ahead([*self.captions.held_out, *self.captions.training], stopped)

    def unload_text_sides(self) -> None:
        """Unload each text side whose features of all captions are cached; another caption loads it again."""
        for read in (self.read, self.read_teacher):
            if isinstance(read, FeatureReader):
                read.unload()

    def prepare(self, batches: BatchLoader) -> None:
        """Collect the noised latents that the objective looks at, if the objective is ever computed."""
        if not self.method.uses_objective:
            return
        noised = self._noised_latents(batches) if self.objective.needs_latents else []
        self.objective.prepare(self.bridge, self.teacher, noised)

    def _noised_latents(self, batches: BatchLoader) -> list[NoisedLatents]:
        settings = self.settings
        if self.method.samples_latents:
            captions = self.captions.training
            return sampled_latents(self.teacher, captions, settings.noised_latents, self.seed)
        return noised_data(self.teacher, batches, settings.noised_latents)

    def solve(self) -> None:
        """Compute weights of the connector in closed form, if the method has a solver."""
        if self.method.solver is not None:
            self.method.solver.fit(self.bridge, self.teacher, self._caption_batches)

    def _caption_batches(self) -> Iterator[tuple[Sequence[str], TextFeatures, TextFeatures]]:
        texts = self.captions.training
        for start in range(0, len(texts), self.settings.batch):
            chosen = texts[start : start + self.settings.batch]
            yield chosen, self.read(chosen), self.read_teacher(chosen)

    def step(self, step: int, rate: float) -> tuple[float, float]:
        """Take step number ``step``, from 0, at the learning rate ``rate``; return fvu and gradient norm."""
        self.state.optimizer.param_groups[0]["lr"] = rate
        batch = self.settings.batch
        positions = range(step * batch, (step + 1) * batch)
        captions = [self.captions.training[self.order.index(position)] for position in positions]
        generator = torch.Generator().manual_seed(mix_seeds(self.seed, step))
        chosen = self.objective.choose(batch, generator)
        mine = self._share(batch)
        captions = captions[mine]
        features = with_noise(self.read(captions), self.settings.noise, generator)
        loss = self._loss(features, self.read_teacher(captions), chosen[mine])
        return take_step(self.state, self.training, loss, step, self.processes)

    def _loss(
        self, features: TextFeatures, teacher_features: TextFeatures, chosen: Int[Tensor, " caption"]
    ) -> Float[Tensor, ""]:
        """Return the objective's fvu, computed in `training.precision`; the fvu itself is float32."""
        is_half = self.training.precision == "bfloat16"
        with torch.autocast(self.bridge.device.type, torch.bfloat16, enabled=is_half):
            return self.objective.loss(self.bridge, self.teacher, features, teacher_features, chosen)

    def _share(self, count: int) -> slice:
        """Return this process's part of a batch."""
        if self.processes is None:
            return slice(0, count)
        size = count // self.processes.count
        return slice(self.processes.index * size, (self.processes.index + 1) * size)

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Return the fvu of the held-out captions, and the cosine to the teacher's conditioning.

        There is one cosine for each prompt's mean token, and one for the pooled vector if both have one.
        """
        texts = self.captions.held_out
        parts = -(-len(texts) // self.settings.batch)  # of equal size: a single caption has no variance
        sums: dict[str, float] = {}
        generator = torch.Generator().manual_seed(mix_seeds(self.seed, MEASURED))
        for part in range(parts):
            captions = texts[part::parts]
            features, teacher_features = self.read(captions), self.read_teacher(captions)
            chosen = self.objective.choose(len(captions), generator)
            loss = self._loss(features, teacher_features, chosen)
            found = {"held_out_fvu": float(loss)} | self._cosines(features, teacher_features, chosen)
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + value * len(captions) / len(texts)
        return sums

    def _cosines(
        self, features: TextFeatures, teacher_features: TextFeatures, chosen: Int[Tensor, " caption"]
    ) -> dict[str, float]:
        t = self.objective.t[chosen]
        made, target = self.bridge.connector(features, t), self.teacher.connector(teacher_features, t)
        pairs = {"token_cosine": (mean_token(made), mean_token(target))}
        if made.pooled is not None and target.pooled is not None:
            pairs["pooled_cosine"] = (made.pooled, target.pooled)
        return {name: float(torch.cosine_similarity(*pair).mean()) for name, pair in pairs.items()}


def _student_reader(
    bridge: Bridge, cache_gb: float, cache: CacheSection | None, is_writing: bool = True
) -> Reader:
    """Return a function from captions to the student's features, with gradients for learned queries."""
    if bridge.connector.reading.queries is not None:
        return bridge.features
    return feature_reader(bridge, cache_gb, cache, is_writing)


def take_step(
    state: TrainingState,
    training: TrainingSection,
    loss: Float[Tensor, ""],
    step: int,
    processes: Processes | None = None,
) -> tuple[float, float]:
    """Update the connector with the gradient, averaged over all processes; return loss and gradient norm.

    Raises NotFiniteError if the loss is not finite.
    """
    weights = state.parts["connector"]
    # LoRA does not learn here, and an objective may not depend on every weight.
    gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    for weight, gradient in zip(weights.values(), gradients, strict=True):
        weight.grad = torch.zeros_like(weight) if gradient is None else gradient
    value = loss.detach()
    if processes is not None:
        processes.average([value, *(weight.grad for weight in weights.values() if weight.grad is not None)])
    if not math.isfinite(float(value)):
        raise NotFiniteError(f"alignment step {step + 1}: the loss is {float(value)}: lower {SETTING}.lr")
    norm = torch.linalg.vector_norm(gradient_norms(weights))
    update_weights(state, training, norm)
    return float(value), float(norm)


def alignment_state(bridge: Bridge, settings: AlignmentSection) -> TrainingState:
    """Make the state at step 0, with the connector's weights and their optimiser.

    Raises ModelError if the connector has no weights to align.
    """
    aligned = bridge.connector.aligned_parameters()
    weights = {name: weight for name, weight in aligned.items() if weight.requires_grad}
    if not weights:
        raise ModelError(f"{SETTING}: this connector has no weights to align: leave {SETTING} out")
    parts = {"connector": weights}
    optimizer = make_optimizer(parts, {"connector": settings.lr}, 0.0, OPTIMIZER)
    return TrainingState(bridge=bridge, model=bridge, parts=parts, optimizer=optimizer, ema=None)


def with_noise(features: TextFeatures, noise: float, generator: torch.Generator) -> TextFeatures:
    """Add normal noise to features; its scale is ``noise`` times each feature's deviation over real tokens.

    A decoder that is trained with such noise treats similar features alike: Nukrai et al. 2022 (CapDec),
    arXiv 2211.00575.
    """
    if not noise:
        return features
    hidden = features.hidden
    spread = hidden.permute(0, 2, 1, 3)[features.mask].std(dim=0)[None, :, None]
    drawn = torch.randn(hidden.shape, generator=generator).to(hidden)
    return replace(features, hidden=hidden + noise * spread * drawn)
