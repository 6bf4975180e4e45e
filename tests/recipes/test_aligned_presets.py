"""The presets of `lavi align` run on toys of the same layout, down to the names of the files."""

import json
from pathlib import Path
from typing import Any

import pytest
from toy_pipelines import pipeline
from typer.testing import CliRunner

from lavibridge.cli.main import app
from lavibridge.recipes.recipe import shipped_recipes
from lavibridge.world.captions import sample_captioned_scene

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:diffusers")
PRESETS = {"sdxl_aligned": "sdxl", "sd35_aligned": "sd3", "flux1_aligned": "flux"}
TOY_LATENTS = {"flux1_aligned": 512}
"""As many as the pipeline's default `max_sequence_length`; the others may have any number."""


def test_every_preset_is_tried() -> None:
    assert set(PRESETS) == {name for name in shipped_recipes() if name.endswith("_aligned")}


@pytest.mark.parametrize("preset", PRESETS)
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
    assert len(summary["panel"]) == 10
