"""Whole runs with steps that are skipped: logged, kept, and gone on with bit for bit."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lavibridge import Bridge
from lavibridge.core.errors import ModelError, NotFiniteError
from lavibridge.core.files import file_sha256
from lavibridge.recipes.recipe import Recipe
from lavibridge.training.checkpoints.checkpoint import checkpoint_manifest_hash, describe_checkpoint_files
from lavibridge.training.data.batches import BatchLoader, TrainingPass
from lavibridge.training.train import train

Toy = Callable[..., Recipe]


@pytest.fixture
def spoilt(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The steps, counted from 0, whose second sample has a NaN in its noise."""
    steps: set[int] = set()
    plain = BatchLoader.draw

    def draw(self: BatchLoader, step: int, turn: int) -> TrainingPass:
        made = plain(self, step, turn)
        if step in steps:
            made.noise[1, 0, 0, 0] = float("nan")
        return made

    monkeypatch.setattr(BatchLoader, "draw", draw)
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
    assert capsys.readouterr().err.count("skipping step") == 2
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


@pytest.mark.parametrize(("rate", "every"), [(1e3, 0), (1e30, 1), (1e39, 0)])
def test_weights_that_diverge_are_not_written(toy: Toy, tmp_path: Path, rate: float, every: int) -> None:
    """The last good checkpoint stays, whatever may be kept, and is gone on with at a good rate."""
    often = {"checkpoint_every": every, "keep_checkpoints": 1, "warmup": 0}
    run = train(toy(training={**often, "steps": 2}), tmp_path / "run")
    good = {path: path.read_bytes() for path in (run / "checkpoints").rglob("*") if path.is_file()}
    wild = {**often, "steps": 9, "lr": {"language_lora": 0.0, "connector": rate, "vision_lora": 0.0}}
    with pytest.raises(
        NotFiniteError,
        match=rf"step [3-6]: training has diverged.*connector \(rate {re.escape(f'{rate:.3g}')}\)",
    ):
        train(toy(training=wild), run, resume=True)
    assert {path: path.read_bytes() for path in (run / "checkpoints").rglob("*") if path.is_file()} == good
    train(toy(training={**often, "steps": 3}), run, resume=True)
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-3"]


def ruin(checkpoint: Path, file: str) -> None:
    """Make half of a file's first tensor NaN, and seal all again as a version did that did not look."""
    weights = load_file(checkpoint / file)
    next(value for value in weights.values() if value.ndim).flatten()[::2] = float("nan")
    save_file(weights, checkpoint / file)
    for folder in (checkpoint / "bridge", checkpoint / "ema"):
        described_there = json.loads((folder / "bridge.json").read_text())
        described_there["files"] = {name: file_sha256(folder / name) for name in described_there["files"]}
        (folder / "bridge.json").write_text(json.dumps(described_there))
    (checkpoint / "manifest.json").unlink()
    files = describe_checkpoint_files(checkpoint)
    (checkpoint / "manifest.json").write_text(
        json.dumps({"format": 2, "files": files, "seal": checkpoint_manifest_hash(files)})
    )


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("bridge/connector/model.safetensors", "the connector in .*bridge"),
        ("bridge/language_lora/adapter_model.safetensors", "the LoRA of the language model in .*bridge"),
        ("ema/vision_lora/adapter_model.safetensors", "the LoRA of the vision model in .*ema"),
        ("optimizer.safetensors", "the optimiser"),
    ],
)
def test_weights_that_are_not_finite_are_not_loaded(toy: Toy, tmp_path: Path, file: str, named: str) -> None:
    run = train(toy(training={"steps": 1}), tmp_path / "run")
    ruin(run / "checkpoints/step-1", file)
    with pytest.raises(ModelError, match=f"{named}.*values are not finite"):
        train(toy(training={"steps": 2}), run, resume=True)
    if "/" in file:
        with pytest.raises(ModelError, match=f"{named}.*values are not finite"):
            Bridge.from_pretrained(run / "checkpoints/step-1" / file.partition("/")[0], "cpu")


def test_a_bridge_that_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    bridge = Bridge.compose(
        {"kind": "t5", "source": "random"}, {"kind": "sd", "source": "random"}, "linear", {"rank": 2}, None
    )
    next(iter(bridge.trained_parameters()["language_lora"].values())).data.fill_(float("inf"))
    with pytest.raises(ModelError, match=r"the LoRA of the language model: .* not finite"):
        bridge.save_pretrained(tmp_path / "bridge")
    assert not (tmp_path / "bridge").exists()
