"""The training loop; everything periodic is an event.

    for each step:   losses of every pass -> gradient -> finite? -> clip -> optimiser -> average -> events

The loop checks loss and gradient before the optimiser changes anything, and the weights afterwards. It skips
a step that is not finite: weights, optimiser and average stay unchanged, the step counts, and the run
continues with the next samples, until there are too many such steps (training/nonfinite.py).
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lavibridge.bridge import Bridge
from lavibridge.core.seeds import mix_seeds
from lavibridge.recipes.sections import component_of_section
from lavibridge.recipes.training_section import WEIGHTING, TrainingSection
from lavibridge.training.data.batches import BatchLoader
from lavibridge.training.ema import Ema
from lavibridge.training.nonfinite import NonfiniteSkips, check_weights_finite, nonfinite_samples
from lavibridge.training.objectives.teacher import Teacher, with_teacher_target
from lavibridge.training.optimization import TrainedWeights, set_learning_rates


@dataclass(kw_only=True)
class TrainingState:
    """The state of a run at one moment."""

    bridge: Bridge
    model: nn.Module
    """The module that the loop calls: the bridge, or DDP around it."""
    parts: TrainedWeights
    optimizer: torch.optim.Optimizer
    ema: Ema | None
    teacher: Teacher | None = None
    """The teacher whose predictions are the target; if None, noise and latents determine the target."""
    proof: Callable[[], Float[Tensor, " sample"]] | None = None
    """Recomputes this session's last pass with finite loss and gradient."""
    step: int = 0
    """Steps taken, skipped ones included."""
    skips: NonfiniteSkips = field(default_factory=NonfiniteSkips)
    """The steps that were skipped."""
    validation: float | None = None
    """The last loss on held-out samples, of the averaged weights if there are any."""
    seconds: float = 0.0
    """Seconds in the loop, including earlier sessions of the run."""
    stop: str = ""
    """The reason why the loop ends after this step; empty while it continues."""
    backward: Callable[[Tensor], None] = field(default=lambda loss: loss.backward())
    no_sync: Callable[[nn.Module], AbstractContextManager[object]] = field(
        default=lambda model: nullcontext()
    )
    """A context in which processes do not average their gradients."""
    any_process: Callable[[bool], bool] = field(default=lambda value: value)
    """Whether a value is true in any process, so that all processes decide alike."""
    gather: Callable[[Tensor], Tensor] = field(default=lambda values: values)
    """The values of all processes, concatenated; every process gives equally many."""


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """The measurements of one step."""

    step: int
    losses: Float[Tensor, " sample"]
    t: Int[Tensor, " sample"]
    gradient_norm: dict[str, float]
    has_gradient: Mapping[str, Bool[Tensor, " parameter"]]
    """For each trained part, in the order of its weights: whether a weight's gradient is not all zeros."""
    lr: dict[str, float]
    pictures: int
    seconds: float
    """Duration of this step."""
    data_wait: float
    """Seconds of the step in which the loop waited for data."""
    elapsed: Mapping[str, float]
    """Activity -> the seconds that it took to load this step's data, prefetched or not."""
    skipped: tuple[str, ...] = ()
    """If the step was skipped: the samples whose loss is not finite, or all if only the gradient is not."""


TrainingEvent = Callable[[TrainingState, StepReport], None]
"""Called after each step."""


@dataclass(frozen=True)
class EverySteps:
    """Event: performs `action` after every `steps` steps; with 0, never."""

    steps: int
    action: TrainingEvent

    def __call__(self, state: TrainingState, report: StepReport) -> None:
        if self.steps and state.step % self.steps == 0:
            self.action(state, report)


def run_training_loop(
    state: TrainingState, batches: BatchLoader, settings: TrainingSection, events: Sequence[TrainingEvent]
) -> None:
    """Train until step `settings.steps`, or until an event sets `state.stop`."""
    training_mode(state.bridge)
    begun = perf_counter() - state.seconds
    limit = (settings.max_minutes or 0) * 60
    while state.step < settings.steps and not state.stop:
        state.seconds = perf_counter() - begun
        clock = state.seconds / limit if limit else 0.0
        report = take_training_step(state, batches, settings, clock)
        state.seconds = perf_counter() - begun
        if limit and state.any_process(state.seconds >= limit):
            state.stop = "the time limit is reached"
        for event in events:
            event(state, report)


def training_mode(bridge: Bridge) -> None:
    """Enable dropout in the connector and in LoRA, and disable it in the frozen models."""
    bridge.eval()
    bridge.connector.train()
    for name, module in bridge.named_modules():
        if "lora_dropout" in name.split("."):
            module.train()


def take_training_step(
    state: TrainingState, batches: BatchLoader, settings: TrainingSection, clock: float
) -> StepReport:
    """Take one optimiser step, or skip it if it is not finite. Raises NotFiniteError after too many skips."""
    begun = perf_counter()
    waited = 0.0
    rates = set_learning_rates(state.optimizer, settings, state.step, clock)
    weighting = component_of_section(WEIGHTING, settings.weighting)
    losses: list[Tensor] = []
    times: list[Tensor] = []
    for turn in range(settings.accumulate):
        asked = perf_counter()
        draw = batches.draw(state.step, turn)
        waited += perf_counter() - asked
        # Dropout uses torch's global generator: this seed makes it, too, a function of the step alone.
        torch.manual_seed(mix_seeds(settings.seed, state.step, turn, batches.process))
        is_last = turn + 1 == settings.accumulate
        with nullcontext() if is_last else state.no_sync(state.model):
            passed = partial(
                state.model, with_teacher_target(state.teacher, draw), draw.t, draw.noise, weighting
            )
            loss = passed()
            state.backward(loss.mean() / settings.accumulate)
        losses.append(loss.detach())
        times.append(draw.t)
    all_losses = torch.cat(losses)
    gradients = {part: gradient_norms(weights) for part, weights in state.parts.items() if weights}
    norms = {part: torch.linalg.vector_norm(each) for part, each in gradients.items()}
    total = torch.linalg.vector_norm(torch.stack(list(norms.values())))
    skipped = nonfinite_samples(all_losses, total, state.step, batches, state.any_process, state.gather)
    if skipped:
        state.optimizer.zero_grad(set_to_none=True)
        state.skips.add(state.step + 1, skipped, settings.max_skips)
    else:
        state.proof = passed
        update_weights(state, settings, total)
        check_weights_finite(state.parts, state.optimizer, state.step + 1)
    state.step += 1
    return StepReport(
        step=state.step,
        losses=state.gather(all_losses).cpu(),
        t=state.gather(torch.cat(times)).cpu(),
        gradient_norm={part: float(norm) for part, norm in norms.items()},
        has_gradient={part: each > 0 for part, each in gradients.items()},
        lr=rates,
        pictures=batches.pictures_per_step,
        seconds=perf_counter() - begun,
        data_wait=waited,
        elapsed=batches.timing.take(),
        skipped=skipped,
    )


def update_weights(state: TrainingState, settings: TrainingSection, norm: Float[Tensor, ""]) -> None:
    """Clip the gradient, whose norm is `norm`, and update the weights and their average."""
    if settings.clip is not None:
        weights = [parameter for part in state.parts.values() for parameter in part.values()]
        torch.nn.utils.clip_grads_with_norm_(weights, settings.clip, norm)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    if state.ema is not None:
        state.ema.update(state.step)


def is_model_finite(state: TrainingState) -> bool:
    """Whether the last finite pass, recomputed, is still finite in every process."""
    if state.proof is None:
        return True
    with state.no_sync(state.model):
        losses = state.proof()
        state.backward(losses.mean())
    found = [losses.detach(), *(gradient_norms(weights) for weights in state.parts.values() if weights)]
    state.optimizer.zero_grad(set_to_none=True)
    return not state.any_process(not all(bool(each.isfinite().all()) for each in found))


def gradient_norms(weights: Mapping[str, nn.Parameter]) -> Float[Tensor, " parameter"]:
    """The norm of each weight's gradient, in the order of the weights; 0 for a weight without gradient."""
    first = next(iter(weights.values()))
    none = torch.zeros((), device=first.device)
    found = [parameter.grad for parameter in weights.values() if parameter.grad is not None]
    lengths = iter(torch._foreach_norm(found) if found else ())
    return torch.stack([none if p.grad is None else next(lengths) for p in weights.values()])
