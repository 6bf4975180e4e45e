"""What `lavi pivot show` knows of pairs: results of the halves as they are, measured alike, and no others."""

import json
from pathlib import Path

import pytest
from toy_pivot import make_pivot
from typer.testing import CliRunner

from lavibridge.cli.main import app
from lavibridge.core.files import file_sha256
from lavibridge.evaluation.pivot_scores import pivot_scores
from lavibridge.evaluation.stats import Estimate, wilson_interval
from lavibridge.pivot import folder
from lavibridge.pivot.folder import PivotFolder

SETTINGS = {"suite": "world", "version": 1, "steps": 20, "guidance": 4.0, "seed": 0, "seeds": 1}


@pytest.fixture
def pivot(tmp_path: Path) -> PivotFolder:
    """Two toys on each side."""
    return make_pivot(tmp_path / "pivot", "first")


def record(right: int, n: int) -> dict[str, object]:
    low, high = wilson_interval(right, n)
    return Estimate(n=n, mean=right / n, low=low, high=high).record()


def put(
    pivot: PivotFolder, language: str, vision: str, one: int, two: int, n: int = 60, **settings: object
) -> None:
    """Write results as `lavi evaluate` does."""
    metric = {
        "unit": "share",
        "all": record(one + two, 2 * n),
        "categories": {"one": record(one, n), "two": record(two, n)},
    }
    origin = {
        f"{side}_weights": file_sha256(pivot.place(side, name) / "half.safetensors")  # type: ignore[arg-type]
        for side, name in (("language", language), ("vision", vision))
    }
    place = pivot.evaluation(language, vision) / "world"
    place.mkdir(parents=True, exist_ok=True)
    results = {**SETTINGS, **settings, "bridge": origin, "metrics": {"world": metric}}
    (place / "results.json").write_text(json.dumps(results))


def test_measured_pairs_predict_the_others(pivot: PivotFolder) -> None:
    put(pivot, "llama", "sd", 55, 40)
    put(pivot, "llama", "sd3", 50, 20)
    put(pivot, "bert", "sd", 52, 35)
    found = pivot_scores(pivot, "world", "world", "two")
    assert {pair: (each.mean, each.n) for pair, each in found.measured.items()} == {
        ("llama", "sd"): (40 / 60, 60),
        ("llama", "sd3"): (20 / 60, 60),
        ("bert", "sd"): (35 / 60, 60),
    }
    assert set(found.predicted) == {("bert", "sd3")}
    assert found.predicted["bert", "sd3"].mean < 20 / 60
    assert found.left_out.n == 0
    assert pivot_scores(pivot, "world", "world").measured["bert", "sd"].n == 120
    assert not pivot_scores(pivot, "world", "world", "three").measured


def test_pairs_measured_otherwise_predict_nothing(pivot: PivotFolder) -> None:
    put(pivot, "llama", "sd", 55, 40)
    put(pivot, "llama", "sd3", 50, 20)
    for change in ({"steps": 12}, {"n": 90}, {"quality": "fast"}, {"seed": 1}):
        put(pivot, "bert", "sd", 52, 35, **change)
        found = pivot_scores(pivot, "world", "world", "two")
        assert set(found.measured_otherwise) == {("bert", "sd")}
        assert not found.predicted


def test_results_of_a_half_that_learned_anew_are_not_shown(pivot: PivotFolder, tmp_path: Path) -> None:
    put(pivot, "llama", "sd", 55, 40)
    put(pivot, "bert", "sd", 52, 35)
    other = make_pivot(tmp_path / "other", "another")
    weights = "half.safetensors"
    (pivot.place("language", "bert") / weights).write_bytes(
        (other.place("language", "bert") / weights).read_bytes()
    )
    assert set(pivot_scores(pivot, "world", "world").measured) == {("llama", "sd")}


def test_show_marks_what_is_predicted_and_says_how(pivot: PivotFolder) -> None:
    def shown(*options: str) -> str:
        done = CliRunner().invoke(app, ["pivot", "show", str(pivot.folder), *options])
        assert done.exit_code == 0, done.output
        return done.stdout

    assert "~" not in shown()
    put(pivot, "llama", "sd", 55, 40)
    put(pivot, "llama", "sd3", 50, 20)
    put(pivot, "bert", "sd", 52, 35)
    table = shown("--category", "one")
    assert "86.7% (n 60)" in table
    assert table.count("~") == 2  # one pair and the note
    assert "fitted to the 3 measured pairs" in table
    assert "no measured pair is left over" in table
    put(pivot, "bert", "sd3", 45, 15)
    assert "~" not in shown()
    put(pivot, "bert", "sd3", 45, 15, steps=12)
    assert "50.0% (n 120)*" in shown()
    assert CliRunner().invoke(app, ["pivot", "show", str(pivot.folder), "-c", "tow"]).exit_code == 2


def test_the_pivot_in_the_package_keeps_its_results_in_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`lavi evaluate PAIR` writes where `lavi pivot show` looks, and neither writes into the package."""
    shipped = make_pivot(tmp_path / "package" / "pivot", "first")
    monkeypatch.setattr(folder, "shipped_pivot_folder", lambda: shipped.folder)
    monkeypatch.chdir(tmp_path)
    options = ["--limit", "1", "--category", "one", "--steps", "1"]
    result = CliRunner().invoke(app, ["evaluate", "llama+sd", *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert shipped.evaluation("llama", "sd") == Path("runs/evaluation/llama+sd")
    assert set(pivot_scores(shipped, "world", "world").measured) == {("llama", "sd")}
    assert not (shipped.folder / "evaluation").exists()
    assert "(n 1)" in CliRunner().invoke(app, ["pivot", "show", str(shipped.folder)]).output
