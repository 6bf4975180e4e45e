"""Reports each step as a line in `log.jsonl` and on a progress bar on stderr.

{"step", "loss", "loss_by_time": [10 bins of t, null where empty], "gradient_norm": {part}, "lr": {part},
 "images_per_second", "data_wait", "seconds", "peak_memory_mib"}
{"step", ..., "skipped": [names]}      a skipped step (training/nonfinite.py)

`data_wait` is the share of the step's time in which the loop waited for its next pass.
"""

import sys

import torch
from jaxtyping import Float, Int
from rich.progress import Progress
from torch import Tensor

from lavibridge.training.loop import StepReport, TrainingState
from lavibridge.training.reporting.trackers import Journal

_BINS = 10


class StepLogger:
    """Event: writes one record per step."""

    def __init__(self, journal: Journal, times: int) -> None:
        self.journal = journal
        self.times = times

    def __call__(self, state: TrainingState, report: StepReport) -> None:
        """Write the step's record."""
        skipped = {"skipped": report.skipped} if report.skipped else {}
        self.journal.write(
            {
                "step": report.step,
                "loss": float(report.losses.mean()),
                "loss_by_time": loss_metrics_by_time(report.losses, report.t, self.times),
                "gradient_norm": report.gradient_norm,
                "lr": report.lr,
                "images_per_second": round(report.pictures / report.seconds, 2),
                "data_wait": round(report.data_wait / report.seconds, 4),
                "seconds": round(state.seconds, 3),
                "peak_memory_mib": round(peak_memory_mib(), 1),
                **skipped,
            }
        )


def loss_metrics_by_time(
    losses: Float[Tensor, " sample"], t: Int[Tensor, " sample"], times: int
) -> list[float | None]:
    """Mean loss in ten equal bins of time, from nearly clean to pure noise; None for an empty bin."""
    place = t * _BINS // times
    sums = torch.zeros(_BINS).index_add_(0, place, losses.float())
    counts = torch.bincount(place, minlength=_BINS)
    return [float(s / n) if n else None for s, n in zip(sums, counts, strict=True)]


def peak_memory_mib() -> float:
    """The peak memory in MiB so far: of the GPU if there is one, otherwise of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    if sys.platform == "win32":
        return 0.0
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**20 if sys.platform == "darwin" else most / 2**10  # bytes there, KiB here


class StepProgress:
    """Event: advances the progress bar, and shows the smoothed loss and images per second."""

    def __init__(self, bar: Progress, steps: int, begun_at: int, max_minutes: float | None) -> None:
        self.bar = bar
        self.steps = steps
        self.limit = (max_minutes or 0) * 60
        self.task = bar.add_task("training", total=steps, completed=begun_at, status="")
        self.loss = 0.0
        self.speed = 0.0
        self.seen = 0

    def __call__(self, state: TrainingState, report: StepReport) -> None:
        """Show the step."""
        self.seen += 1
        share = max(0.05, 1 / self.seen)
        if not report.skipped:
            self.loss += share * (float(report.losses.mean()) - self.loss)
        self.speed += share * (report.pictures / report.seconds - self.speed)
        held_out = "" if state.validation is None else f"  held out {state.validation:.4f}"
        status = f"loss {self.loss:.4f}{held_out}  {self.speed:.1f} images/s"
        end = self.expected_end(state)
        self.bar.update(self.task, completed=report.step, total=end, status=status)

    def expected_end(self, state: TrainingState) -> int:
        """The step at which training will end: the last one, or the one at the time limit."""
        if not self.limit or state.seconds <= 0:
            return self.steps
        return max(state.step, min(self.steps, round(state.step * self.limit / state.seconds)))
