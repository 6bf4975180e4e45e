"""The loop and nothing else; whatever happens once in a while is an event.

    for each step:   losses of every pass -> gradient -> finite? -> clip -> AdamW -> average -> events

Loss and gradient are looked at before the optimiser moves anything: a step that is not finite is not taken,
and the weights stay as good as they were.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from time import perf_counter

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lavibridge.bridge import Bridge
from lavibridge.core.errors import NotFiniteError
from lavibridge.recipes.training import Training
from lavibridge.training.batches import Batches
from lavibridge.training.ema import Ema
from lavibridge.training.optim import Parts, set_rates
from lavibridge.training.order import mix


@dataclass(kw_only=True)
class State:
    """What a run is at one moment."""

    bridge: Bridge
    model: nn.Module
    """The bridge as it is called: itself, or wrapped for several processes."""
    parts: Parts
    optimizer: torch.optim.Optimizer
    ema: Ema | None
    step: int = 0
    """Steps taken."""
    seconds: float = 0.0
    """Time spent in the loop, earlier sessions of the run included."""
    stop: str = ""
    """Why the loop should end after this step; empty while it should not."""
    backward: Callable[[Tensor], None] = field(default=lambda loss: loss.backward())
    alone: Callable[[nn.Module], AbstractContextManager[object]] = field(default=lambda model: nullcontext())
    """A pass whose gradients are not yet shared between processes."""
    any_process: Callable[[bool], bool] = field(default=lambda value: value)
    """Whether it is so in any process: all of them must decide alike."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a step was like."""

    step: int
    losses: Float[Tensor, " sample"]
    t: Int[Tensor, " sample"]
    gradient_norm: dict[str, float]
    lr: dict[str, float]
    pictures: int
    seconds: float
    """Of this step."""


Event = Callable[[State, Report], None]


def fit(state: State, batches: Batches, settings: Training, events: Sequence[Event]) -> None:
    """Take steps until there are `settings.steps`, or until an event sets `state.stop`."""
    training_mode(state.bridge)
    begun = perf_counter() - state.seconds
    limit = (settings.max_minutes or 0) * 60
    while state.step < settings.steps and not state.stop:
        state.seconds = perf_counter() - begun
        clock = state.seconds / limit if limit else 0.0
        report = take_step(state, batches, settings, clock)
        state.seconds = perf_counter() - begun
        if limit and state.any_process(state.seconds >= limit):
            state.stop = "the time is up"
        for event in events:
            event(state, report)


def training_mode(bridge: Bridge) -> None:
    """Dropout in what is trained (connector, LoRA) and none in the frozen models, which stay as they are."""
    bridge.eval()
    bridge.connector.train()
    for name, module in bridge.named_modules():
        if "lora_dropout" in name.split("."):
            module.train()


def take_step(state: State, batches: Batches, settings: Training, clock: float) -> Report:
    """One optimiser step; NotFiniteError, before anything moves, when loss or gradient is not finite."""
    begun = perf_counter()
    rates = set_rates(state.optimizer, settings, state.step, clock)
    losses: list[Tensor] = []
    times: list[Tensor] = []
    names: list[str] = []
    for turn in range(settings.accumulate):
        draw = batches.draw(state.step, turn)
        # Dropout draws from torch's global generator: seeded here, it too depends on the step alone.
        torch.manual_seed(mix(settings.seed, state.step, turn, batches.process))
        is_last = turn + 1 == settings.accumulate
        with nullcontext() if is_last else state.alone(state.model):
            loss = state.model(draw.batch, draw.t, draw.noise, settings.weighting)
            state.backward(loss.mean() / settings.accumulate)
        losses.append(loss.detach())
        times.append(draw.t)
        names += draw.batch.names
    all_losses = torch.cat(losses)
    norms, total = gradient_norms(state.parts)
    require_finite(state, all_losses, total, names)
    if settings.clip is not None:
        weights = [parameter for part in state.parts.values() for parameter in part.values()]
        torch.nn.utils.clip_grads_with_norm_(weights, settings.clip, total)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    if state.ema is not None:
        state.ema.update(state.step)
    state.step += 1
    return Report(
        step=state.step,
        losses=all_losses.cpu(),
        t=torch.cat(times).cpu(),
        gradient_norm={part: float(norm) for part, norm in norms.items()},
        lr=rates,
        pictures=batches.pictures_per_step,
        seconds=perf_counter() - begun,
    )


def gradient_norms(parts: Parts) -> tuple[dict[str, Tensor], Tensor]:
    """The length of each part's gradient, and of all together."""
    norms = {
        part: torch.nn.utils.get_total_norm([p.grad for p in weights.values() if p.grad is not None])
        for part, weights in parts.items()
        if weights
    }
    return norms, torch.linalg.vector_norm(torch.stack(list(norms.values())))


def require_finite(
    state: State, losses: Float[Tensor, " sample"], norm: Float[Tensor, ""], names: Sequence[str]
) -> None:
    """Raise NotFiniteError, in every process alike, when a loss or the gradient is NaN or infinite."""
    fine = torch.isfinite(losses)
    if not state.any_process(not bool(fine.all() & torch.isfinite(norm))):
        return
    state.optimizer.zero_grad(set_to_none=True)
    bad = tuple(name for name, good in zip(names, fine.tolist(), strict=True) if not good)
    what = "the loss" if bad else "the gradient"
    found = bad or tuple(names)
    shown = ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
    raise NotFiniteError(
        f"step {state.step + 1}: {what} is not finite (samples: {shown}). The step was not taken and the "
        "weights are as before it. Look at these samples; else lower training.lr, or use precision float32",
        found,
    )
