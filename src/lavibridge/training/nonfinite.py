"""Handles losses and gradients that are not finite: training skips the step, a bounded number of times.

    a sample's loss or the gradient's norm is not finite, in any process -> skip, and name the samples
    three such steps in a row, or more than `training.max_skips` in a run -> NotFiniteError names all samples
    weights after an update are not finite -> NotFiniteError names the part and its learning rate
    before a checkpoint, the last finite pass, recomputed, is not finite -> the same, and nothing is written

One bad sample in a million pairs should not end a run of weeks, and a diverged run should not continue
silently. Finite weights may have diverged too (a learning rate of 1000 does that in one step): recomputing
the last finite pass distinguishes diverged weights from bad samples.
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
"""Largest number of names in a message; the log has all of them."""


@dataclass
class NonfiniteSkips:
    """The skipped steps and their samples; part of a checkpoint."""

    samples: dict[int, tuple[str, ...]] = field(default_factory=dict)
    """Number of the step, from 1 -> the names of the samples."""

    def add(self, step: int, names: Sequence[str], most: int) -> None:
        """Add a step. Raises NotFiniteError, with the names of all samples, if there are too many."""
        here = {**self.samples, step: tuple(names)}
        in_a_row = all(earlier in here for earlier in range(step - _ON_END + 1, step + 1))
        if len(here) > most or in_a_row:
            found = tuple(dict.fromkeys(name for each in here.values() for name in each))
            why = (
                f"like the {_ON_END - 1} steps before it"
                if in_a_row
                else f"and a run may skip at most {most} steps"
            )
            raise NotFiniteError(
                f"step {step}: the loss or the gradient is not finite (samples: {shorten_names(names)}), "
                f"{why}. The step has not changed the weights. Check these samples; if they are good, lower "
                "training.lr, or use precision float32. The samples of all such steps: "
                f"{shorten_names(found)}",
                found,
            )
        self.samples = here
        print_line(
            f"skipping step {step}: its loss or gradient is not finite (samples: {shorten_names(names)}); "
            f"skipped {len(here)} of at most {most} steps in this run"
        )


def nonfinite_samples(
    losses: Float[Tensor, " sample"],
    norm: Float[Tensor, ""],
    step: int,
    batches: BatchLoader,
    any_process: Callable[[bool], bool],
    gather: Callable[[Tensor], Tensor],
) -> tuple[str, ...]:
    """Names of the samples, in all processes, whose loss is not finite; all if only the gradient is not."""
    fine = torch.isfinite(losses)
    if not any_process(not bool(fine.all() & torch.isfinite(norm))):
        return ()
    # A sample is a function of its position, so flags are enough to name the samples of other processes.
    settings = batches.settings
    flags = gather(fine).reshape(batches.processes, settings.accumulate, settings.batch).transpose(0, 1)
    begin = step * batches.pictures_per_step
    bad = (~flags.flatten()).nonzero().flatten().tolist() or range(batches.pictures_per_step)
    return tuple(batches.visits.at(range(begin + place, begin + place + 1))[0][1].name for place in bad)


def check_weights_finite(parts: TrainedWeights, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Raise NotFiniteError, in every process alike, if weights are not finite after an update."""
    lengths = {
        part: torch.stack(torch._foreach_norm(list(each.values()))) for part, each in parts.items() if each
    }
    if not bool(torch.cat([each.to("cpu") for each in lengths.values()]).isfinite().all()):
        ruined = [part for part, each in lengths.items() if not bool(each.isfinite().all())]
        raise nonfinite_error(ruined, optimizer, step, "are not finite, or above 1e19")


def nonfinite_error(
    parts: Sequence[str], optimizer: torch.optim.Optimizer, step: int, what: str
) -> NotFiniteError:
    """Make the error for a run whose weights have diverged."""
    rates = {group["part"]: group["lr"] for group in optimizer.param_groups}
    said = ", ".join(f"{part} (rate {rates[part]:.3g})" for part in parts)
    return NotFiniteError(
        f"step {step}: training has diverged: the weights of {said} {what}. They are not written, and "
        "earlier checkpoints are intact: lower the learning rates (training.lr) and continue with --resume, "
        "or start again if there is no checkpoint"
    )


def shorten_names(names: Sequence[str]) -> str:
    """Join the first names, and state how many more there are."""
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
