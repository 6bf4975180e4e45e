"""Writes a run's numbers to `log.jsonl` and to the trackers that the recipe names.

    record -> Journal -> log.jsonl                    the whole record
                      -> tensorboard, wandb, trackio  its scalar values, as `gradient_norm/connector`

TensorBoard's files are in the run folder (`tensorboard --logdir RUN/tensorboard`). wandb and trackio follow
their own environment variables, such as WANDB_MODE=offline; a resumed run continues the same curves. A
tracker that fails gets no further records, because weeks of training must not depend on a web service.
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
    """A service that shows numbers as curves."""

    @abstractmethod
    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Record the numbers of a step."""

    @abstractmethod
    def close(self) -> None:
        """Finish; no more numbers follow."""


@final
class TensorBoard(Tracker):
    """TensorBoard's event files in the run folder."""

    def __init__(self, run: Path, recipe: Mapping[str, Any], step: int) -> None:
        board = import_module("torch.utils.tensorboard")
        # Hide the steps that a killed session wrote after its last checkpoint.
        self.writer = board.SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


@final
class WandB(Tracker):
    """Weights & Biases, through its own package."""

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
    """Hugging Face's tracker, which stores its numbers on this machine."""

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
    """Writes the records of a run to its log and its trackers."""

    def __init__(self, log: JsonLog, trackers: Sequence[Tracker] = ()) -> None:
        self.log = log
        self.trackers = list(trackers)

    def write(self, record: Mapping[str, Any]) -> None:
        """Write a record, which has a `step`."""
        self.log.write(record)
        for tracker in tuple(self.trackers):
            try:
                tracker.write(int(record["step"]), dict(tracked_numbers(record)))
            except Exception as error:  # a service's client may raise anything
                self.trackers.remove(tracker)
                print_line(f"note: {type(tracker).__name__} failed and gets no further records: {error}")

    def close(self) -> None:
        """Close the log and the trackers."""
        self.log.close()
        for tracker in self.trackers:
            try:
                tracker.close()
            except Exception as error:
                print_line(f"note: {type(tracker).__name__} could not be closed: {error}")


def check_trackers(names: Sequence[str]) -> None:
    """Raise RecipeError if a tracker is not installed."""
    for name in names:
        if find_spec(name) is None:
            raise RecipeError(
                f"training.trackers: {name} is not installed: pip install 'lavibridge[track]' (or only "
                f"{name}), or leave it out; log.jsonl needs no tracker"
            )


def open_journal(run: Path, recipe: Recipe, step: int) -> Journal:
    """Open the log and the trackers of a run that continues after ``step``."""
    told = recipe.model_dump(mode="json")
    trackers = [_TRACKERS[name](run, told, step) for name in recipe.training.trackers]
    return Journal(JsonLog(run / "log.jsonl"), trackers)


def tracked_numbers(record: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
    """Yield the scalar values of a record with their paths, except the step."""
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from tracked_numbers(value, f"{above}{key}/")
        elif isinstance(value, int | float) and key != "step":
            yield f"{above}{key}", float(value)


def _run_id(run: Path) -> str:
    """An identifier of this run folder, the same in every session."""
    return sha256(str(run.resolve()).encode()).hexdigest()[:12]
