"""Events that warn once about trained weights without gradient, and about a run that waits for its data.

Both wait for several steps of a session: LoRA's up-projection starts at zero, so its down-projection has no
gradient at the first step, and the same may be true of a connector.
"""

from collections.abc import Mapping
from typing import final

from jaxtyping import Bool
from torch import Tensor

from lavibridge.training.loop import StepReport, TrainingState
from lavibridge.training.nonfinite import shorten_names
from lavibridge.training.optimization import TrainedWeights
from lavibridge.training.reporting.console import print_line
from lavibridge.training.reporting.timing import ENCODING, FEATURES, READING

ALERT_AFTER_STEPS = 20
"""Number of steps before a warning about weights without gradient."""
DATA_WAIT_STEPS = 50
"""Steps over which the wait for data is averaged."""
_MOST_WAITED = 0.05
"""Largest share of the time that a run may wait for data without a warning."""
_REMEDIES: Mapping[str, str] = {
    READING: "store the images on a faster disk and at the size that training uses, or fill a cache with "
    "`lavi cache`",
    ENCODING: "fill a cache with `lavi cache`, or raise training.latent_cache_gb (the first epoch must "
    "encode each image once)",
    FEATURES: "fill a cache with `lavi cache`",
}


@final
class ZeroGradientAlert:
    """Event: warns about trained weights whose gradient was zero in each of the first steps."""

    def __init__(self, parts: TrainedWeights) -> None:
        self.names = {part: list(weights) for part, weights in parts.items()}
        self.moved: dict[str, Bool[Tensor, " parameter"]] = {}
        self.steps = 0

    def __call__(self, state: TrainingState, report: StepReport) -> None:
        """Take a step into account."""
        if self.steps == ALERT_AFTER_STEPS or report.skipped:
            return
        self.steps += 1
        for part, has in report.has_gradient.items():
            self.moved[part] = self.moved.get(part, has) | has
        if self.steps < ALERT_AFTER_STEPS:
            return
        for part, moved in self.moved.items():
            still = [name for name, has in zip(self.names[part], moved.tolist(), strict=True) if not has]
            if still:
                print_line(
                    f"note: {len(still)} of {len(moved)} weights of {part} had no gradient in "
                    f"{ALERT_AFTER_STEPS} steps and do not learn: {shorten_names(still)}"
                )


@final
class DataWaitAlert:
    """Event: warns if waiting for data takes more than a twentieth of the time, and names the cause."""

    def __init__(self) -> None:
        self.steps = 0
        self.waited = 0.0
        self.seconds = 0.0
        self.elapsed: dict[str, float] = {}
        self.is_said = False

    def __call__(self, state: TrainingState, report: StepReport) -> None:
        """Take a step into account."""
        self.steps += 1
        self.waited += report.data_wait
        self.seconds += report.seconds
        for cause, seconds in report.elapsed.items():
            self.elapsed[cause] = self.elapsed.get(cause, 0.0) + seconds
        if self.steps < DATA_WAIT_STEPS:
            return
        share = self.waited / self.seconds
        if share > _MOST_WAITED and self.elapsed and not self.is_said:
            self.is_said = True
            cause = max(self.elapsed, key=lambda each: self.elapsed[each])
            print_line(
                f"note: the last {self.steps} steps spent {share:.0%} of their time waiting for data, most "
                f"of it for {cause}: {_REMEDIES[cause]}"
            )
        self.steps, self.waited, self.seconds, self.elapsed = 0, 0.0, 0.0, {}
