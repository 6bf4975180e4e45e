"""Whole runs with steps that are skipped: logged, kept, and gone on with bit for bit."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lavibridge.core.errors import NotFiniteError
from lavibridge.recipes.recipe import Recipe
from lavibridge.training.batches import Batches, Draw
from lavibridge.training.train import train

Toy = Callable[..., Recipe]


@pytest.fixture
def spoilt(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The steps, counted from 0, whose second sample has a NaN in its noise."""
    steps: set[int] = set()
    plain = Batches.draw

    def draw(self: Batches, step: int, turn: int) -> Draw:
        made = plain(self, step, turn)
        if step in steps:
            made.noise[1, 0, 0, 0] = float("nan")
        return made

    monkeypatch.setattr(Batches, "draw", draw)
    return steps


def test_a_run_goes_on_after_a_bad_sample_and_can_be_resumed_over_it(
    toy: Toy, tmp_path: Path, spoilt: set[int], capsys: pytest.CaptureFixture[str]
) -> None:
    spoilt |= {1, 3}
    straight = train(toy(training={"steps": 5}), tmp_path / "straight")
    rows = [json.loads(line) for line in (straight / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert [len(row.get("skipped", ())) for row in rows] == [0, 1, 0, 1, 0]
    assert rows[1]["loss"] is None
    assert capsys.readouterr().err.count("is skipped") == 2
    broken = tmp_path / "broken"
    train(toy(training={"steps": 2}), broken)
    kept = json.loads((broken / "checkpoints/step-2/state.json").read_text())
    assert kept["skipped"] == {"2": rows[1]["skipped"]}
    train(toy(training={"steps": 5}), broken, resume=True)
    for path in sorted((straight / "checkpoints/step-5").rglob("*.safetensors")):
        one, other = load_file(path), load_file(broken / path.relative_to(straight))
        assert one.keys() == other.keys()
        assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_skips_before_a_resume_count(toy: Toy, tmp_path: Path, spoilt: set[int]) -> None:
    spoilt |= {0, 2}
    run = train(toy(training={"steps": 2, "max_skips": 1}), tmp_path / "run")
    with pytest.raises(NotFiniteError, match="step 3"):
        train(toy(training={"steps": 4, "max_skips": 1}), run, resume=True)
