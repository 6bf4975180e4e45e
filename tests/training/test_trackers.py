"""Where numbers go besides the log: TensorBoard for real, and what is said of a tracker that is missing."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import final

import pytest

from lavibridge.core.errors import RecipeError
from lavibridge.core.log import JsonLog
from lavibridge.recipes.recipe import Recipe
from lavibridge.training.checkpoints.checkpoint import saved_checkpoints
from lavibridge.training.reporting import trackers
from lavibridge.training.reporting.trackers import Journal, Tracker, check_trackers, tracked_numbers
from lavibridge.training.train import train

Toy = Callable[..., Recipe]


def curve(run: Path, name: str) -> list[tuple[int, float]]:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = reader.EventAccumulator(str(run / "tensorboard"))
    found.Reload()
    return [(event.step, event.value) for event in found.Scalars(name)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_shows_the_log_also_after_a_resume(toy: Toy, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    kept = {"trackers": ("tensorboard",), "checkpoint_every": 2}
    run = train(toy(training={**kept, "steps": 2}), tmp_path / "run")
    train(toy(training={**kept, "steps": 4}), run, resume=True)
    assert saved_checkpoints(run)
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    for name, value in (
        ("loss", lambda row: row["loss"]),
        ("gradient_norm/connector", lambda row: row["gradient_norm"]["connector"]),
        ("lr/vision_lora", lambda row: row["lr"]["vision_lora"]),
    ):
        assert curve(run, name) == [(row["step"], pytest.approx(value(row), rel=1e-6)) for row in rows]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
def test_a_tracker_that_is_not_installed_is_named_before_anything_begins(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=rf"{name} is not installed: pip install 'lavibridge\[track\]'"):
        train(toy(training={"trackers": (name,)}), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    check_trackers(())


@final
class Faulty(Tracker):
    """A service that goes away at its second record."""

    def __init__(self) -> None:
        self.got: list[int] = []

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        if self.got:
            raise ConnectionError("the service is gone")
        self.got.append(step)

    def close(self) -> None:
        raise ConnectionError("still gone")


def test_a_tracker_that_fails_ends_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    faulty = Faulty()
    journal = Journal(JsonLog(tmp_path / "log.jsonl"), [faulty])
    for step in range(1, 4):
        journal.write({"step": step, "loss": 1.0})
    journal.close()
    assert faulty.got == [1]
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 3
    assert capsys.readouterr().err.count("the service is gone") == 1


def test_single_numbers_are_named_by_their_path() -> None:
    record = {"step": 3, "loss": 1, "lr": {"connector": 0.5}, "loss_by_time": [1.0, None], "skipped": ("a",)}
    assert dict(tracked_numbers(record)) == {"loss": 1.0, "lr/connector": 0.5}
