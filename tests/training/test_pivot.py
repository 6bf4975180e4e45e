"""The stages of a pivot: what each of them trains, what it leaves on disk, and where it continues."""

import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Thread

import pytest
import torch
from run_folder import same
from safetensors.torch import load_file
from typer.testing import CliRunner

from lavibridge.cli.main import app
from lavibridge.core.errors import LaviError, RecipeError, RunError
from lavibridge.core.files import models_folder
from lavibridge.pivot import compose
from lavibridge.pivot.folder import PivotFolder, read_pivot
from lavibridge.pivot.half import read_half
from lavibridge.recipes.recipe import Recipe
from lavibridge.training.alignment.objective import needs_vision_weights
from lavibridge.training.pivot.alignment import add_vision, create
from lavibridge.training.pivot.recipes import added_recipe, first_recipe
from lavibridge.training.pivot.regression import add_language

SHORT = (
    "data.scenes=120",
    "connector.slots=6",
    "connector.width=32",
    "connector.latents=4",
    "training.align={steps: 12, batch: 8, lr: 5.0e-3, noised_latents: 16, measure_every: 6, captions: 100}",
)
pytestmark = pytest.mark.usefixtures("one_thread")


def first(*settings: str) -> Recipe:
    return first_recipe("mini-llama_mini-sd_pivot", [*SHORT, *settings], None)


def added(pivot: PivotFolder, side: str, source: str, *settings: str) -> Recipe:
    return added_recipe(pivot, side, source, settings, None)  # type: ignore[arg-type]


def weights(pivot: PivotFolder, side: str, name: str) -> dict[str, torch.Tensor]:
    return load_file(pivot.folder / side / name / "half.safetensors")


@pytest.fixture(scope="module")
def pivot(tmp_path_factory: pytest.TempPathFactory) -> PivotFolder:
    """A first pair, hardly trained."""
    return create(first(), tmp_path_factory.mktemp("pivot") / "pivot")


def test_the_first_pair_is_the_bridge_that_was_aligned(pivot: PivotFolder) -> None:
    assert (pivot.names("language"), pivot.names("vision")) == (("mini-llama",), ("mini-sd",))
    assert (pivot.description.slots, pivot.description.width) == (6, 32)
    logged = [json.loads(line) for line in (pivot.folder / "align.jsonl").read_text().splitlines()]
    for side, name in (("language", "mini-llama"), ("vision", "mini-sd")):
        learning = read_half(pivot, side, name).description.learning  # type: ignore[arg-type]
        assert learning.fvu == pytest.approx(logged[-1]["held_out_fvu"])
        assert (learning.captions, learning.teacher) == (12 * 8, "the text encoder of mini-sd")
    assert logged[-1]["held_out_fvu"] < logged[0]["held_out_fvu"]
    assert not (pivot.folder / "align.safetensors").exists()


def test_a_language_model_learns_the_slots_and_no_vision_model_loads(
    pivot: PivotFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a vision model was loaded")

    monkeypatch.setattr("lavibridge.vision.hf.DiffusersModel.__init__", refuse)
    fvu = []
    for name, steps in (("once", 1), ("longer", 60)):
        recipe = added(pivot, "language", "mini-t5-small", f"training.align.steps={steps}")
        add_language(pivot, recipe, name)
        half = read_half(pivot, "language", name).description
        assert half.learning.teacher == "the language half 'mini-llama'"
        assert half.options["read"] is None
        fvu.append(half.learning.fvu)
    assert fvu[0] is not None
    assert fvu[1] is not None
    assert fvu[1] < 0.8 * fvu[0]


def test_a_vision_model_learns_and_the_language_half_stays(pivot: PivotFolder) -> None:
    before = weights(pivot, "language", "mini-llama")
    add_vision(pivot, added(pivot, "vision", "mini-pixart", "training.align.steps=2"), "mini-pixart")
    after = weights(pivot, "language", "mini-llama")
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    bridge = compose(pivot.folder, "mini-llama", "mini-pixart")
    assert bridge.condition(["a red circle"]).tokens.shape == (1, 4, bridge.vision.spec.context)


def test_a_stage_that_is_stopped_continues_bit_for_bit(pivot: PivotFolder, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    stop = Thread(target=stop_after, args=(broken / "align.jsonl", 5), daemon=True)
    stop.start()
    with pytest.raises(KeyboardInterrupt):
        create(first(), broken)
    stop.join()
    with pytest.raises(RunError, match=r"is not a pivot: it has no pivot\.json"):
        read_pivot(broken)
    with pytest.raises(RunError, match="add --resume"):
        create(first(), broken)
    with pytest.raises(RunError, match=r"connector\.latents was 4, is 5"):
        create(first("connector.latents=5"), broken, resume=True)
    again = create(first(), broken, resume=True)
    assert again.description.id == pivot.description.id
    for half in ("language/mini-llama", "vision/mini-sd"):
        assert same(pivot.folder / half, broken / half)


def stop_after(log: Path, lines: int) -> None:
    """Press Ctrl-C when a log is so long."""
    while not log.is_file() or log.read_bytes().count(b"\n") < lines:
        time.sleep(0.005)
    os.kill(os.getpid(), signal.SIGINT)


def test_a_half_needs_the_weights_of_its_vision_model_whatever_is_compared() -> None:
    assert needs_vision_weights(first("training.align.match=tokens", "training.steps=0"))


def test_what_cannot_be_added_is_refused_before_models_load(pivot: PivotFolder, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"connector\.slots is 7, but every half of .* must have 6"):
        added(pivot, "language", "mini-bert", "connector.slots=7")
    with pytest.raises(RecipeError, match=r"a pivot needs the connector 'pivot', but .* is 'lavi'"):
        first_recipe("mini-llama_mini-sd_lavi", [], None)
    with pytest.raises(RunError, match="mini-llama exists already: choose another --name"):
        add_language(pivot, added(pivot, "language", "mini-llama"), "mini-llama")
    with pytest.raises(RunError, match="is already a pivot"):
        create(first(), pivot.folder)
    with pytest.raises(LaviError, match="no model folder 'mini-brt'; did you mean 'mini-bert'"):
        added(pivot, "language", "mini-brt")


def lavi(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_verbs(pivot: PivotFolder, tmp_path: Path) -> None:
    captions = tmp_path / "captions.txt"
    captions.write_text("\n".join(f"{number} red circles beside a blue star" for number in range(40)))
    made = lavi(
        "pivot", "add-language", pivot.folder, "mini-bert", "training.align.steps=2", "--captions", captions
    )
    assert made.strip() == str(pivot.place("language", "mini-bert"))
    shown = lavi("pivot", "show", pivot.folder)
    assert f"pivot {pivot.description.id}: 6 slots of 32 numbers" in shown
    assert row(shown, "language/mini-bert")[1:4] == ["mini-bert", shown_fvu(pivot), "4"]
    picture = lavi(
        "generate",
        "mini-bert+mini-sd",
        "a red circle",
        *("--pivot", pivot.folder, "--steps", "2", "--out", tmp_path / "pictures"),
    )
    assert Path(picture.strip()).is_file()
    options = ("--pivot", pivot.folder, "--steps", "2", "--category", "one", "--limit", "2")
    lavi("evaluate", "mini-bert+mini-sd", *options)
    lavi("evaluate", f"{models_folder() / 'mini-bert'}+mini-sd", *options)
    assert [path.name for path in (pivot.folder / "evaluation").iterdir()] == ["mini-bert+mini-sd"]
    assert "(n 2)" in " ".join(row(lavi("pivot", "show", pivot.folder), "mini-bert "))


def row(table: str, start: str) -> Sequence[str]:
    """The cells of a printed row."""
    (line,) = (each for each in table.splitlines() if each.startswith(start))
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def shown_fvu(pivot: PivotFolder) -> str:
    fvu = read_half(pivot, "language", "mini-bert").description.learning.fvu
    assert fvu is not None
    return f"{fvu:.1%}"


def test_a_pair_needs_a_pivot_and_a_pivot_a_pair(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="--pivot needs a pair such as"):
        lavi("generate", "mini-sd", "a red circle", "--pivot", tmp_path)
    with pytest.raises(RunError, match="this version ships no pivot: create one"):
        lavi("generate", "mini-bert+mini-sd", "a red circle")
