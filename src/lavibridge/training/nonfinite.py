"""Losses and gradients that are not finite: training skips the step, a bounded number of times.

    loss of every sample, length of the gradient -> not finite, in any process -> samples to blame, by name
    three such steps on end, or more than `training.max_skips` in a run  ->  NotFiniteError names them all
    weights after an update -> not finite        ->  NotFiniteError names part and rate
    before a checkpoint: the last good pass once more -> not finite  ->  the same, and nothing is written

One bad sample in a million pairs should not end a run of weeks, and a diverged run should not continue in
silence. Finite weights may be ruined too (a learning rate of 1000 does that in one step): recomputing the
last finite pass tells ruined weights from bad samples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from lavibridge.core.errors import NotFiniteError
from lavibridge.training.data.batches import BatchLoader
from lavibridge.training.optimization import TrainedWeights
from lavibridge.training.reporting.console import print_line

_ON_END = 3
"""Consecutive skipped steps that end a run."""
_SHOWN = 8
"""Names in a message; the log has all of them."""


@dataclass
class NonfiniteSkips:
    """The skipped steps, each with the responsible samples; part of a checkpoint."""

    samples: dict[int, tuple[str, ...]] = field(default_factory=dict)
    """By the step's number, counted from 1."""

    def add(self, step: int, names: Sequence[str], most: int) -> None:
        """Add a step; NotFiniteError, with the names of all samples, if there are too many."""
        here = {**self.samples, step: tuple(names)}
        in_a_row = all(earlier in here for earlier in range(step - _ON_END + 1, step + 1))
        if len(here) > most or in_a_row:
            found = tuple(dict.fromkeys(name for each in here.values() for name in each))
            why = (
                f"as were the {_ON_END - 1} before it" if in_a_row else f"and {most} may be skipped in a run"
            )
            raise NotFiniteError(
                f"step {step}: the loss or the gradient is not finite (samples: {shorten_names(names)}), "
                f"{why}. The weights are as before it. Look at these samples; else lower training.lr, or use "
                f"precision float32. The samples of all such steps: {shorten_names(found)}",
                found,
            )
        self.samples = here
        print_line(
            f"step {step} is skipped: its loss or gradient is not finite (samples: {shorten_names(names)}); "
            f"{len(here)} of at most {most} in a run"
        )


def nonfinite_samples(
    losses: Float[Tensor, " sample"],
    norm: Float[Tensor, ""],
    step: int,
    batches: BatchLoader,
    any_process: Callable[[bool], bool],
    gather: Callable[[Tensor], Tensor],
) -> tuple[str, ...]:
    """The names of samples whose loss is not finite, in any process; all if only the gradient is not."""
    fine = torch.isfinite(losses)
    if not any_process(not bool(fine.all() & torch.isfinite(norm))):
        return ()
    # Which sample stands where is a function of its position, so that flags say enough of other processes.
    settings = batches.settings
    flags = gather(fine).reshape(batches.processes, settings.accumulate, settings.batch).transpose(0, 1)
    begin = step * batches.pictures_per_step
    bad = (~flags.flatten()).nonzero().flatten().tolist() or range(batches.pictures_per_step)
    return tuple(batches.visits.at(range(begin + place, begin + place + 1))[0][1].name for place in bad)


def check_weights_finite(parts: TrainedWeights, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Raise NotFiniteError if weights are not finite after an update, in every process alike."""
    lengths = {
        part: torch.stack(torch._foreach_norm(list(each.values()))) for part, each in parts.items() if each
    }
    if not bool(torch.cat([each.to("cpu") for each in lengths.values()]).isfinite().all()):
        ruined = [part for part, each in lengths.items() if not bool(each.isfinite().all())]
        raise nonfinite_error(ruined, optimizer, step, "are not finite, or above 1e19")


def nonfinite_error(
    parts: Sequence[str], optimizer: torch.optim.Optimizer, step: int, what: str
) -> NotFiniteError:
    """The error of a run whose weights have diverged."""
    rates = {group["part"]: group["lr"] for group in optimizer.param_groups}
    said = ", ".join(f"{part} (rate {rates[part]:.3g})" for part in parts)
    return NotFiniteError(
        f"step {step}: training has diverged: the weights of {said} {what}. They are not written, and the "
        "checkpoints before stay as they are: lower the rates (training.lr) and go on from the newest with "
        "--resume, or begin anew where there is none"
    )


def shorten_names(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
