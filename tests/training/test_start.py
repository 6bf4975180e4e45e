"""What is refused at the start leaves nothing behind, and nothing is written where it would be read next."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from lavibridge.cli.main import app
from lavibridge.core.errors import LaviError
from lavibridge.core.files import write_folder_atomic
from lavibridge.recipes.recipe import Recipe, dump_recipe, make_recipe
from lavibridge.training.start_checks import check_start

Toy = Callable[..., Recipe]


def lavi(*arguments: object) -> LaviError:
    """The error that a command ends with."""
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    assert isinstance(done.exception, LaviError), f"{done.exception!r}\n{done.output}"
    return done.exception


@pytest.fixture
def written(toy: Toy, tmp_path: Path) -> Path:
    path = tmp_path / "toy.yaml"
    path.write_text(dump_recipe(toy()))
    return path


def pictures(folder: Path, count: int = 3) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (16, 16), (number, 9, 9)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("a red circle")
    return folder


WRONG = {
    "size": (["data.size=17"], "multiples of"),
    "buckets": (["data.size=17", "data.buckets=true"], "multiples of"),
    "device": (["training.device=cuda:7"], "no CUDA GPU"),
    "another device": (["training.device=meta"], "is not supported"),
    "no device": (["training.device=7up"], "is not a device"),
    "a CPU too many": (["training.device=cpu:3"], "finds 1 CPU"),
    "optimiser": (["training.optimizer=adamw8bit"], "needs bitsandbytes.*not installed"),
    "flash": (["training.attention=flash"], "needs flash_attn.*not installed"),
    "quantised": (["language.quantize=4bit"], "needs bitsandbytes.*not installed"),
    "a quantised denoiser": (["vision.quantize=8bit"], "needs bitsandbytes.*not installed"),
    "tracker": (["training.trackers=[wandb]"], "wandb is not installed"),
    "alignment of a toy": (["training.align={steps: 2}"], r"training\.align needs the vision model's own"),
    "alignment by blocks": (
        ["connector={kind: llmdiff}", "training.align={steps: 2, match: attention}"],
        "changes single layers",
    ),
    "teacher of a toy": (["training.teacher={}"], r"training\.teacher needs the vision model's own"),
    "sharding": (["training.sharding=fsdp2", "training.teacher={}"], "leave one of the two out"),
    "kept features": (
        ["training.sharding=fsdp2", "lora.language=null", "training.feature_cache_gb=1"],
        "training.sharding does not support cached",
    ),
    "preview": (["training.preview_every=1", "preview.prompts=['']"], "prompt 1 is empty"),
    "nothing trained": (
        [
            "connector=identity",
            "language={kind: clip, source: random}",
            "lora={language: null, vision: null}",
        ],
        "nothing is trained",
    ),
    "no data": (["data.kind=folder", "data.path=gone"], "there is no folder"),
    "no validation": (["training.validation.share=0.0001"], "held out"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_recipe_is_refused_and_leaves_nothing(
    case: str, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # an extra that may be installed
    settings, said = WRONG[case]
    error = lavi("train", written, "--out", tmp_path / "deep" / "run", *settings)
    assert re.search(said, str(error)), error
    assert not (tmp_path / "deep").exists()


def test_an_out_that_cannot_be_written_is_refused(written: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out, said in (
        (tmp_path / "file" / "run", "is a file"),
        (tmp_path / ("x" * 300), "cannot be a folder"),
        ("/proc/run", ""),
    ):
        assert said in str(lavi("train", written, "--out", out))
    assert [path.name for path in tmp_path.iterdir() if path != written] == ["file"]


def test_other_commands_leave_nothing_either(written: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    wrong_size = [f"training.cache.folder={out}", "data.size=17"]
    lavi("cache", written, *wrong_size)
    lavi("cache", written, f"training.cache.folder={out}", "training.device=cuda:7")
    lavi("evaluate", "mini-sd", "--suite", "wrld", "--out", out)
    lavi("evaluate", "mini-sd", "--quality", "best", "--out", out)
    lavi("evaluate", "mini-sd", "--metric", "wrld", "--out", out)
    lavi("evaluate", "mini-sd", "--category", "onee", "--out", out)
    lavi("quickstart", "--language", tmp_path / "gone", "--out", out)
    lavi("export", tmp_path / "gone", "--format", "peft", "--out", out)
    lavi("export", tmp_path / "gone", "--format", "pef", "--out", out)
    lavi("import", "ella", tmp_path / "gone", "--language", "mini-llama", "--vision", "mini-sd", "--out", out)
    lavi("data", "check", written, "data.kind=folder", f"data.path={tmp_path / 'gone'}", f"data.index={out}")
    (tmp_path / "empty").mkdir()
    lavi("data", "check", written, "data.kind=folder", f"data.path={tmp_path / 'empty'}", f"data.index={out}")
    study = {
        "name": "wrong",
        "question": "Does it begin?",
        "recipe": str(written),
        "conditions": [{"name": "good"}, {"name": "bad", "set": {"training.device": "cuda:7"}}],
        "suites": {"world": {"suite": "world", "limit": 1}},
        "rows": [{"name": "all", "suite": "world"}],
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    lavi("study", tmp_path / "study.yaml", "--out", out)
    study |= {"conditions": [{"name": "good"}], "suites": {"world": {"suite": "wrld"}}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    lavi("study", tmp_path / "study.yaml", "--out", out)
    assert not out.exists()


def half_write(folder: Path) -> None:
    with write_folder_atomic(folder):
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "half").write_text("half")
        (folder / "half").write_text("half")
        raise LaviError("it failed")


def test_a_block_that_fails_leaves_none_of_its_folder(tmp_path: Path) -> None:
    for folder in (tmp_path / "new", tmp_path / "empty"):
        is_new = folder.name == "new"
        if not is_new:
            folder.mkdir()
        with pytest.raises(LaviError):
            half_write(folder)
        assert folder.exists() != is_new
        assert is_new or not any(folder.iterdir())


def in_data(path: Path) -> list[str]:
    return ["data.kind=folder", f"data.path={path}", "data.size=16"]


def test_a_run_and_its_pictures_are_kept_apart(written: Path, tmp_path: Path) -> None:
    data = pictures(tmp_path / "run" / "pictures")
    before = sorted(tmp_path.rglob("*"))
    for out, more, said in (
        (tmp_path / "run", [], r"inside the run's own folder"),
        (data, [], r"inside the run's own folder"),
        (data / "run", [], r"--out is .* inside data\.path"),
        (
            tmp_path / "other",
            [f"training.cache.folder={data / 'cache'}"],
            r"training\.cache\.folder is .*data\.path",
        ),
        (tmp_path / "other", [f"data.index={data / 'index'}"], r"data\.index is .*data\.path"),
        (
            tmp_path / "run",
            ["data.kind=tsv", f"data.path={data / 'list.tsv'}"],
            r"inside the run's own folder",
        ),
    ):
        error = lavi("train", written, "--out", out, *in_data(data)[: 0 if len(more) > 1 else 3], *more)
        assert re.search(said, str(error)), error
    (tmp_path / "link").symlink_to(data)
    assert "is inside data.path" in str(
        lavi("train", written, "--out", tmp_path / "link" / "run", *in_data(data))
    )
    assert "is inside data.path" in str(
        lavi("cache", written, *in_data(data), f"training.cache.folder={data / 'c'}")
    )
    parts = f"data={{kind: mixture, size: 16, parts: [{{kind: world}}, {{kind: folder, path: {data}}}]}}"
    assert "data.parts.1.path" in str(lavi("train", written, "--out", data / "run", parts))
    (tmp_path / "link").unlink()
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_drawn_and_exported_stays_out_of_data_and_models(written: Path, tmp_path: Path) -> None:
    data = pictures(tmp_path / "pictures")
    run = tmp_path / "run"
    arguments = ["train", written, "--out", run, *in_data(data), "training.steps=1"]
    done = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert done.exit_code == 0
    before = sorted(data.rglob("*"))
    step = run / "checkpoints" / "step-1"
    for command in (
        ["generate", run, "a red circle", "--out", data],
        ["generate", step, "a red circle", "--out", data / "deep"],
        ["evaluate", run, "--out", data / "evaluation"],
        ["evaluate", data, "--drawn", "--out", data / "evaluation"],
        ["export", run, "--format", "peft", "--out", data / "exported"],
    ):
        assert "would be read as a part of it" in str(lavi(*command))
    model = tmp_path / "model"
    model.mkdir()
    (model / "model_index.json").write_text(json.dumps({}))
    for command in (
        ["generate", model, "a red circle", "--out", model],
        ["evaluate", model, "--out", model],
        ["train", written, "--out", model / "run", f"language.source={model}"],
        ["import", "ella", data, "--language", model, "--vision", "mini-sd", "--out", model / "made"],
    ):
        assert "would be read as a part of it" in str(lavi(*command))
    assert sorted(data.rglob("*")) == before
    assert [path.name for path in model.iterdir()] == ["model_index.json"]


def test_a_hidden_place_among_the_pictures_is_not_read_and_so_allowed(toy: Toy, tmp_path: Path) -> None:
    from lavibridge.recipes.input_paths import check_input_paths
    from lavibridge.recipes.recipe import make_recipe

    data: dict[str, Any] = {"kind": "folder", "path": str(pictures(tmp_path / "pictures")), "size": 16}
    recipe = make_recipe({**toy().model_dump(), "data": data})
    check_input_paths(recipe, tmp_path / "pictures" / ".runs" / "a")
    check_input_paths(recipe, tmp_path / "pictures-of-runs")


def test_captions_that_vary_are_not_cached(toy: Toy, tmp_path: Path) -> None:
    for data in (
        {"shuffle_tags": True},
        {"kind": "mixture", "scenes": None, "parts": [{"kind": "world", "scenes": 4, "tag_dropout": 0.1}]},
    ):
        settings = {name: value for name, value in {**toy().data.model_dump(), **data}.items() if value}
        if "parts" in data:
            settings = {"kind": "mixture", "size": 16, "parts": data["parts"]}
        recipe = make_recipe(
            {
                **toy().model_dump(),
                "lora": {"language": None, "vision": {"rank": 4}},
                "data": settings,
                "training": {**toy().training.model_dump(), "feature_cache_gb": 0.5},
            }
        )
        with pytest.raises(LaviError, match="another caption at every visit"):
            check_start(recipe, tmp_path / "run")


def test_sample_prompts_come_from_a_file(written: Path, tmp_path: Path) -> None:
    prompts, run = tmp_path / "prompts.txt", tmp_path / "run"
    prompts.write_text("a green star\n\na red moon\n")
    call = ["train", written, "training.steps=1", "training.preview_every=1", "preview.steps=1"]
    done = CliRunner().invoke(app, [*map(str, call), "--sample-prompts", str(prompts), "--out", str(run)])
    assert done.exit_code == 0, done.output
    assert yaml.safe_load((run / "recipe.yaml").read_text())["preview"]["prompts"] == [
        "a green star",
        "a red moon",
    ]
    with Image.open(run / "samples" / "step-1.png") as sheet:
        assert "a green star; a red moon" in sheet.text["description"]
    lines = tmp_path / "prompts.jsonl"
    lines.write_text('{"prompt": "a", "seed": 3, "width": 64}\n')
    error = lavi(*call, "--sample-prompts", lines, "--out", tmp_path / "other")
    assert re.search(r"has seed, width for 'a', but these images share all settings", str(error))
    assert not (tmp_path / "other").exists()
