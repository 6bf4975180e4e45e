"""The presets of `lavi align` run on toys of the same layout, down to the names of the files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from added_lora import some_pairs, write_kohya
from PIL import Image, ImageChops
from toy_pipelines import pipeline
from typer.testing import CliRunner

from lavibridge.cli.main import app
from lavibridge.core.errors import RecipeError
from lavibridge.generation.pipeline import BridgePipeline
from lavibridge.recipes.recipe import shipped_recipes
from lavibridge.report import alignment
from lavibridge.report.alignment import PANEL, write_alignment_report
from lavibridge.world.captions import sample_captioned_scene

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:diffusers")
PRESETS = {"sdxl_aligned": "sdxl", "sd35_aligned": "sd3", "flux1_aligned": "flux"}
TOY_LATENTS = {"flux1_aligned": 512}
"""As many as the pipeline's default `max_sequence_length`; the others may have any number."""


def test_every_preset_is_tried() -> None:
    assert set(PRESETS) == {name for name in shipped_recipes() if name.endswith("_aligned")}


@pytest.mark.parametrize(
    "preset",
    [pytest.param(each, marks=pytest.mark.slow if each == "sdxl_aligned" else ()) for each in PRESETS],
)
def test_a_preset_aligns_a_toy_and_reports_without_names(preset: str, tmp_path: Path) -> None:
    pipeline(PRESETS[preset]).save_pretrained(tmp_path / "private-name")
    captions = tmp_path / "captions.txt"
    captions.write_text("\n".join(sample_captioned_scene(1, index).caption for index in range(40)))
    settings = [
        f"vision.source={tmp_path / 'private-name'}",
        "vision.dtype=float32",
        "language={kind: llama, source: mini-llama}",
        f"connector.latents={TOY_LATENTS.get(preset, 8)}",
        "training.align.steps=4",
        "training.align.batch=8",
        "training.align.noised_latents=8",
        "training.align.measure_every=2",
        "training.precision=float32",
        "training.device=cpu",
        "preview.steps=1",
    ]
    out = tmp_path / "run"
    done = CliRunner().invoke(
        app, ["align", preset, *settings, "--captions", str(captions), "--out", str(out), "--report"]
    )
    assert done.exit_code == 0, done.output
    text = (out / "alignment-report/summary.json").read_text()
    assert "private-name" not in text
    assert str(tmp_path) not in text
    summary: dict[str, Any] = json.loads(text)
    assert summary["steps"] == 4
    assert summary["vision"]["source"] == "local folder"
    curve = [json.loads(line) for line in (out / "alignment-report/curve.jsonl").read_text().splitlines()]
    assert 0 < summary["last_measured"]["held_out_fvu"] < curve[0]["held_out_fvu"]
    assert [row["label"] for row in summary["panel"]] == [each.label for each in PANEL]
    *others, stacked = summary["panel"]
    assert all(row["not_drawn"] == [None, None] for row in others)
    assert stacked["not_drawn"] == ["no LoRA file was given (--panel-lora)"] * 2


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy of Stable Diffusion, solved in closed form."""
    folder = tmp_path_factory.mktemp("aligned")
    pipeline("sd").save_pretrained(folder / "model")
    settings = ["training.align={match: closed_form, held_out: 0, batch: 8}", "training.device=cpu"]
    settings += [f"vision.source={folder / 'model'}", "data.scenes=20", "data.size=64", "lora.language=null"]
    settings += ["lora.vision=null", "training.preview_every=0"]
    out = folder / "run"
    done = CliRunner().invoke(app, ["align", "mini-llama_mini-sd_lavi", *settings, "--out", str(out)])
    assert done.exit_code == 0, done.output
    return out


def split_sheet(report: Path) -> tuple[Image.Image, Image.Image]:
    """The panel's sheet above its last row, and that row."""
    sheet = Image.open(report / "panel.png")
    edge = sheet.height - 264
    return sheet.crop((0, 0, sheet.width, edge)), sheet.crop((0, edge, sheet.width, sheet.height))


def test_a_lora_file_is_stacked_in_the_last_row_alone(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alignment, "PANEL", PANEL[-2:])
    found, file = {}, tmp_path / "private-name.safetensors"
    write_kohya(some_pairs(pipeline("sd").unet, every=3), file, {}, alpha=3.0)
    (tmp_path / "ruin.safetensors").write_bytes(b"ruin")
    for name, given in (("none", None), ("file", file), ("ruin", tmp_path / "ruin.safetensors")):
        report = write_alignment_report(run, given)
        found[name] = (*split_sheet(report), json.loads((report / "summary.json").read_text())["panel"][-1])
        assert "private-name" not in (report / "summary.json").read_text()
    assert found["file"][2]["not_drawn"] == [None, None]
    assert found["ruin"][2]["not_drawn"] == ["the LoRA file cannot be read into this image model"] * 2
    assert ImageChops.difference(found["file"][0], found["none"][0]).getbbox() is None
    assert ImageChops.difference(found["file"][1], found["none"][1]).getbbox() is not None


def test_a_panel_that_does_not_fit_into_memory_is_left_out(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_memory(source: Path) -> Callable[..., Any]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(BridgePipeline, "from_pretrained", without_memory)
    summary = json.loads((write_alignment_report(run) / "summary.json").read_text())
    assert len(summary["panel"]) == len(PANEL)
    assert all(row["not_drawn"] == ["out of memory"] * 2 for row in summary["panel"])


@pytest.mark.parametrize(
    ("options", "message"), [([], "add --report"), (["--report"], "there is no file gone")]
)
def test_a_lora_file_that_cannot_be_drawn_is_refused_first(options: list[str], message: str) -> None:
    asked = ["align", "mini-llama_mini-sd_lavi", "--panel-lora", "gone.safetensors", *options]
    done = CliRunner().invoke(app, asked)
    assert isinstance(done.exception, RecipeError), done.output
    assert message in str(done.exception)
