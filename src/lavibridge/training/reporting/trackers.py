"""Where a run's numbers go: always `log.jsonl`, and trackers by name.

    record -> Journal -> log.jsonl                    all of it
                      -> tensorboard, wandb, trackio  its single numbers, as `gradient_norm/connector`

TensorBoard's files lie in the run folder (`tensorboard --logdir RUN/tensorboard`). wandb and trackio follow
their own environment variables, such as WANDB_MODE=offline; a run that is resumed goes on in the same curve.
A tracker that fails is left out from then on, as weeks of training must not hang on a web service.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, final

from lavibridge.core.errors import RecipeError
from lavibridge.core.log import JsonLog
from lavibridge.recipes.recipe import Recipe
from lavibridge.training.reporting.console import print_line

_PROJECT = "lavibridge"


class Tracker(ABC):
    """Shows curves of numbers."""

    @abstractmethod
    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Take the numbers of a step."""

    @abstractmethod
    def close(self) -> None:
        """No more will come."""


@final
class TensorBoard(Tracker):
    """Event files in the run folder."""

    def __init__(self, run: Path, recipe: Mapping[str, Any], step: int) -> None:
        board = import_module("torch.utils.tensorboard")
        # What a killed session wrote after the checkpoint that is gone on from is hidden.
        self.writer = board.SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


@final
class WandB(Tracker):
    """Weights & Biases, by its own package."""

    def __init__(self, run: Path, recipe: Mapping[str, Any], step: int) -> None:
        self.run = import_module("wandb").init(
            project=_PROJECT,
            name=run.resolve().name,
            id=_run_id(run),
            resume="allow",
            dir=str(run),
            config=dict(recipe),
        )

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        self.run.log(dict(numbers), step=step)

    def close(self) -> None:
        self.run.finish()


@final
class Trackio(Tracker):
    """Hugging Face's tracker, which keeps its numbers on this machine."""

    def __init__(self, run: Path, recipe: Mapping[str, Any], step: int) -> None:
        name = f"{run.resolve().name}-{_run_id(run)}"
        self.run = import_module("trackio").init(
            project=_PROJECT, name=name, config=dict(recipe), resume="allow"
        )

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        self.run.log(dict(numbers), step=step)

    def close(self) -> None:
        self.run.finish()


_TRACKERS: Mapping[str, type[TensorBoard] | type[WandB] | type[Trackio]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "trackio": Trackio,
}


@final
class Journal:
    """All records of a run."""

    def __init__(self, log: JsonLog, trackers: Sequence[Tracker] = ()) -> None:
        self.log = log
        self.trackers = list(trackers)

    def write(self, record: Mapping[str, Any]) -> None:
        """Take a record, which says its `step`."""
        self.log.write(record)
        for tracker in tuple(self.trackers):
            try:
                tracker.write(int(record["step"]), dict(tracked_numbers(record)))
            except Exception as error:  # whatever a service's client may raise
                self.trackers.remove(tracker)
                print_line(f"note: {type(tracker).__name__} failed and gets nothing more: {error}")

    def close(self) -> None:
        """End the log and the trackers."""
        self.log.close()
        for tracker in self.trackers:
            try:
                tracker.close()
            except Exception as error:
                print_line(f"note: {type(tracker).__name__} could not be closed: {error}")


def check_trackers(names: Sequence[str]) -> None:
    """RecipeError where a tracker is not installed."""
    for name in names:
        if find_spec(name) is None:
            raise RecipeError(
                f"training.trackers: {name} is not installed: pip install 'lavibridge[track]' (or only "
                f"{name}); log.jsonl is written without it"
            )


def open_journal(run: Path, recipe: Recipe, step: int) -> Journal:
    """The log of a run that goes on after a step, and its trackers."""
    told = recipe.model_dump(mode="json")
    trackers = [_TRACKERS[name](run, told, step) for name in recipe.training.trackers]
    return Journal(JsonLog(run / "log.jsonl"), trackers)


def tracked_numbers(record: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
    """The single numbers of a record by their path; lists and the step are left out."""
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from tracked_numbers(value, f"{above}{key}/")
        elif isinstance(value, int | float) and key != "step":
            yield f"{above}{key}", float(value)


def _run_id(run: Path) -> str:
    """A name that this run folder has always, and no other has."""
    return sha256(str(run.resolve()).encode()).hexdigest()[:12]
