"""The quickstart, whole, on toy models of the real classes: everything it promises lies in the folder."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from lavibridge import BridgePipeline
from lavibridge.bridge import Bridge
from lavibridge.connectors.translator import Translator
from lavibridge.core.packaged import PACKAGED
from lavibridge.quickstart import (
    SHEET_PROMPTS,
    quickstart_recipe,
    run_quickstart,
    second_language_recipe,
)
from lavibridge.recipes.recipe import make_recipe

TOY = {
    "language": {"kind": "llama", "source": "random"},
    "connector": {"kind": "lavi"},
    "lora": {"language": {"rank": 2}, "vision": {"rank": 2}},
    "data": {"kind": "world", "scenes": 8},
    "training": {
        "steps": 2,
        "align": {"steps": 2, "batch": 2, "captions": 8, "held_out": 2, "noised_latents": 2},
        "batch": 2,
        "warmup": 1,
        "preview_every": 0,
        "checkpoint_every": 0,
        "device": "cpu",
    },
}


def test_the_quickstart_ends_in_a_sheet_results_and_a_report_and_a_second_call_does_nothing_twice(
    toy_sd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "quickstart"
    recipe = make_recipe({**TOY, "vision": {"source": str(toy_sd)}})
    assert run_quickstart(recipe, out, prompts=2, steps=1) == out
    assert "".join(capsys.readouterr().err.split()).endswith(f"laviserve{out}"), "ends in a page"
    results = json.loads((out / "results.json").read_text())
    scored = {"trained": results, **results["compared"]}
    assert list(scored) == [
        "trained",
        "untrained bridge",
        "mini-bert in front of it",
        "the image model's own text encoder",
    ]
    for each in scored.values():
        scores = each["metrics"]["world"]["categories"]
        assert set(scores) == {"one", "two", "spatial"}
        for score in scores.values():
            assert score["n"] == 2
            assert 0 <= score["low"] <= score["high"] <= 1
    assert {"training", "evaluating"} <= set(results["seconds"])
    with Image.open(out / "contact_sheet.png") as sheet:
        assert SHEET_PROMPTS[0] in sheet.info["description"]
    assert "Contact sheet" in (out / "report.html").read_text()
    assert BridgePipeline(Bridge.from_pretrained(out))(["a red circle"], num_inference_steps=1, seed=0).images
    swapped = Bridge.from_pretrained(out / "mini-bert")
    assert swapped.language.config.source == "mini-bert"
    first = Bridge.from_pretrained(out).connector.state_dict()
    assert isinstance(swapped.connector, Translator)
    kept = swapped.connector.then.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in first.items() if name in kept)

    log, checkpoints = (out / "log.jsonl").read_text(), sorted((out / "checkpoints").iterdir())
    run_quickstart(recipe, out, prompts=2, steps=1)
    assert (out / "log.jsonl").read_text() == log
    assert sorted((out / "checkpoints").iterdir()) == checkpoints


def test_the_recipe_keeps_to_the_time() -> None:
    recipe = quickstart_recipe(1.0)
    assert recipe.training.max_minutes is not None
    assert 0.9 <= recipe.training.max_minutes <= 1.0


@pytest.mark.parametrize(("own", "second"), [(None, "mini-bert"), ("mini-bert", "mini-llama")])
def test_the_second_language_model_is_another_one(
    own: str | None, second: str, toy_sd: Path, tmp_path: Path
) -> None:
    random = {"kind": "llama", "source": "random"}
    Bridge.compose(random, {"source": str(toy_sd)}, "resampler", None, None).save_pretrained(tmp_path)
    recipe = second_language_recipe(quickstart_recipe(1.0, own), tmp_path)
    assert recipe.language.model_dump()["source"] == second
    assert recipe.training.steps == 0
    assert recipe.training.align
    assert recipe.training.align.steps == 300
    assert recipe.training.align.teacher == str(tmp_path)


def test_the_recipe_takes_another_language_model_and_finds_its_family(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    language = quickstart_recipe(1.0, str(tmp_path)).language.model_dump()
    assert language["kind"] == "bert"
    assert language["source"] == str(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(PACKAGED["minilm"].path() is None, reason="needs the extra [minilm]")
def test_a_real_language_model_goes_into_the_shipped_image_model(tmp_path: Path) -> None:
    """all-MiniLM-L6-v2 into mini-sd: the real quickstart but for its length."""
    recipe = quickstart_recipe(1.0, "minilm")
    assert recipe.training.align
    short = recipe.training.model_copy(
        update={
            "steps": 3,
            "batch": 4,
            "warmup": 1,
            "max_minutes": None,
            "align": recipe.training.align.model_copy(
                update={"steps": 2, "batch": 8, "captions": 40, "noised_latents": 8}
            ),
        }
    )
    out = run_quickstart(
        recipe.model_copy(update={"training": short}), tmp_path / "minilm", prompts=2, steps=2
    )
    results = json.loads((out / "results.json").read_text())
    assert results["metrics"]["world"]["categories"]["one"]["n"] == 2
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [1, 2, 3]
    assert all(norm > 0 for norm in log[-1]["gradient_norm"].values())
