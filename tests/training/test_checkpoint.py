"""Checkpoints: whole or not there, refused by the name of the file that is damaged, safe on a full disk."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from run_folder import tensors

from lavibridge.core.errors import RunError
from lavibridge.recipes.recipe import Recipe, make_recipe, may_change_on_resume
from lavibridge.training.checkpoints.checkpoint import (
    check_checkpoint_files,
    prune_checkpoints,
    saved_checkpoints,
)
from lavibridge.training.checkpoints.run_fingerprint import RunFingerprint, fingerprint_differences
from lavibridge.training.run_folder import flatten_recipe, rewind_run_log
from lavibridge.training.train import train

Toy = Callable[..., Recipe]
FILES = (
    "bridge/bridge.json",
    "bridge/connector/config.json",
    "bridge/connector/model.safetensors",
    "bridge/language_lora/adapter_config.json",
    "bridge/language_lora/adapter_model.safetensors",
    "bridge/vision_lora/adapter_config.json",
    "bridge/vision_lora/adapter_model.safetensors",
    "ema/bridge.json",
    "ema/connector/config.json",
    "ema/connector/model.safetensors",
    "ema/language_lora/adapter_config.json",
    "ema/language_lora/adapter_model.safetensors",
    "ema/vision_lora/adapter_config.json",
    "ema/vision_lora/adapter_model.safetensors",
    "manifest.json",
    "optimizer.safetensors",
    "state.json",
)


def make_toy(toy: Toy, **training: Any) -> Recipe:
    return toy(training=training)


@pytest.fixture(scope="module")
def whole(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps with its checkpoint."""
    return train(make_toy(toy, steps=2), tmp_path_factory.mktemp("whole") / "run")


def test_the_files_of_a_checkpoint_are_these(whole: Path) -> None:
    folder = whole / "checkpoints/step-2"
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == list(
        FILES
    )
    check_checkpoint_files(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_cut_short_changed_or_gone_is_named(whole: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "step-2"
    shutil.copytree(whole / "checkpoints/step-2", folder)
    victim = folder / name
    data = victim.read_bytes()
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    for ruin in (data[:-2], data[: len(data) // 2], b"", bytes(flipped), data + b"\0"):
        victim.write_bytes(ruin)
        with pytest.raises(RunError, match=f"{name} is damaged") as refused:
            check_checkpoint_files(folder)
        assert "continue from the checkpoint before it" in str(refused.value)
    if name != "manifest.json":  # without it the folder is no checkpoint at all
        victim.unlink()
        with pytest.raises(RunError, match=f"{name} is missing"):
            check_checkpoint_files(folder)


def test_training_goes_on_from_a_whole_checkpoint_only(toy: Toy, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.copytree(run / "checkpoints/step-2", run / "checkpoints/step-9")
    (run / "checkpoints/step-9/manifest.json").unlink()
    assert [path.name for path in saved_checkpoints(run)] == ["step-2"]
    (run / "checkpoints/step-2/optimizer.safetensors").write_bytes(b"")
    with pytest.raises(RunError, match=r"optimizer\.safetensors is damaged"):
        train(make_toy(toy, steps=3), run, resume=True)


def test_old_checkpoints_go_at_once_or_not_at_all(tmp_path: Path) -> None:
    for step in (1, 2, 10):
        folder = tmp_path / f"checkpoints/step-{step}"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
    (tmp_path / "checkpoints/.step-11.partial").mkdir()
    (tmp_path / "checkpoints/step-7").mkdir()  # not one of ours
    prune_checkpoints(tmp_path, None)
    assert [path.name for path in saved_checkpoints(tmp_path)] == ["step-1", "step-2", "step-10"]
    prune_checkpoints(tmp_path, 2)
    left = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert left == ["step-10", "step-2", "step-7"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB: a file system of its own, where one may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    mount = shutil.which("mount")
    if mount is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here (it takes root on Linux)")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(place: Path, leave: int) -> Path:
    """A file that takes all of a disk but some bytes."""
    filler = place / "filler"
    with open(filler, "wb") as file:
        file.write(b"\0" * (shutil.disk_usage(place).free - leave))
    return filler


def test_a_disk_that_is_full_leaves_the_earlier_checkpoint_whole(
    toy: Toy, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real one: the room is taken away after the look at it before the first step."""
    monkeypatch.setattr("lavibridge.training.checkpoints.disk_space.MARGIN", 0)
    run = train(make_toy(toy, steps=1, ema=None), small_disk / "run")
    before = tensors(run / "checkpoints/step-1")
    filler = fill(small_disk, 400_000)
    with pytest.raises(RunError, match="MiB of free disk, but this run needs"):
        train(make_toy(toy, steps=2, ema=None), run, resume=True)
    monkeypatch.setattr("lavibridge.training.train.check_disk_space", lambda *arguments: None)
    with pytest.raises(RunError, match=r"step 2 cannot be written: .*No space left.*are intact"):
        train(make_toy(toy, steps=2, ema=None), run, resume=True)
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-1"]
    check_checkpoint_files(run / "checkpoints/step-1")
    after = tensors(run / "checkpoints/step-1")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    filler.unlink()
    train(make_toy(toy, steps=2, ema=None, keep_checkpoints=1), run, resume=True)
    assert [path.name for path in saved_checkpoints(run)] == ["step-2"]


def test_a_disk_without_room_is_refused_before_the_first_step(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lavibridge.training.checkpoints.disk_space.MARGIN", 2**60)
    for training, count in (
        ({"steps": 9, "checkpoint_every": 1, "keep_checkpoints": 3}, 4),
        ({"steps": 9, "checkpoint_every": 1, "keep_checkpoints": None}, 9),
        ({"steps": 9, "checkpoint_every": 5, "keep_checkpoints": 3}, 2),
        ({"steps": 9, "checkpoint_every": 0, "keep_checkpoints": 3}, 1),
    ):
        with pytest.raises(RunError, match=f": {count} checkpoints of 2 "):
            train(make_toy(toy, **training), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_every_difference_is_listed_and_what_may_change_is_not_refused(
    toy: Toy, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    other = toy(
        lora={"vision": {"rank": 2}, "language": None},
        data={"scenes": 11, "seed": 4},
        training={"seed": 1, "steps": 3, "lr": {"connector": 0.5}},
    )
    with pytest.raises(RunError) as refused:
        train(other, run, resume=True)
    said = str(refused.value)
    for key in ("lora.vision.rank", "lora.language.rank", "data.scenes", "data.seed", "training.seed"):
        assert f"  {key} was " in said
    assert "training.steps" not in said
    assert "training.lr" not in said


def test_the_guide_lists_the_fields_that_may_change(toy: Toy, tmp_path: Path) -> None:
    data = {"kind": "jsonl", "path": tmp_path / "pairs.jsonl"}
    recipe = make_recipe(toy(training={"validation": {}}).model_dump() | {"data": data})
    keys = list(flatten_recipe(recipe.model_dump(mode="json")))
    free = {key for key in keys if may_change_on_resume(recipe, key)}
    assert {"data.path", "training.validation.every", "training.weighting.kind", "preview.seed"} < free
    fixed = {"training.seed", "training.ema", "training.optimizer.kind", "training.validation.share"}
    assert {"lora.vision.rank", "connector.kind", *fixed} < {*keys} - free
    assert not may_change_on_resume(recipe, "training.no_such_field")
    guide = (Path(__file__).parents[2] / "docs/guides/resume.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"`([\w.]+)`", guide[guide.index("## What may change") :]))
    documented = {name.split(".")[-1] for name in listed}
    assert {key.split(".")[1] for key in free if not key.startswith("preview.")} <= documented


def test_what_a_run_stands_on_is_compared_whole() -> None:
    now = RunFingerprint(
        data="a", language="b", vision="c", batch=4, accumulate=1, processes=2, by_shape=False
    )
    kept: dict[str, Any] = {"data": "a", "language": "b", "vision": "c", "by_shape": False}
    assert fingerprint_differences({**kept, "batch": 2, "accumulate": 4, "processes": 1}, now) == []
    found = fingerprint_differences(
        {"data": "x", "language": "y", "vision": "z", "batch": 4, "accumulate": 8, "processes": 1}, now
    )
    assert len(found) == 4
    assert "= 4 x 8 x 1 = 32 pictures, is 4 x 1 x 2 = 8" in found[-1]


def test_other_weights_in_a_model_s_folder_are_noticed_and_another_place_is_not(
    toy: Toy, tmp_path: Path
) -> None:
    from lavibridge.bridge import Bridge

    bridge = Bridge.compose(
        {"kind": "t5", "source": "random"}, {"kind": "sd", "source": "random"}, "lavi", None, None
    )
    bridge.language.backbone.save_pretrained(tmp_path / "speaker")
    bridge.language.tokenizer.save_pretrained(tmp_path / "speaker")
    language = {"kind": "t5", "source": str(tmp_path / "speaker")}
    run = train(toy(language=language, training={"steps": 1}), tmp_path / "run")
    shutil.move(tmp_path / "speaker", tmp_path / "elsewhere")
    language = {"kind": "t5", "source": str(tmp_path / "elsewhere")}
    train(toy(language=language, training={"steps": 2}), run, resume=True)
    weight = next(bridge.language.backbone.parameters())
    weight.data += 1
    bridge.language.backbone.save_pretrained(tmp_path / "elsewhere")
    with pytest.raises(RunError, match=r"the language model was [0-9a-f]{64}, is [0-9a-f]{64}"):
        train(toy(language=language, training={"steps": 3}), run, resume=True)


def test_a_log_is_taken_back_to_the_checkpoint(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 1}\n{"step": 2, "validation": 3}\n{"step": 3}\n{"step": 4, "los')
    rewind_run_log(log, 2)
    assert log.read_text() == '{"step": 1}\n{"step": 2, "validation": 3}\n'
    rewind_run_log(tmp_path / "none.jsonl", 2)
    assert os.listdir(tmp_path) == ["log.jsonl"]
    log.write_text('{"step": 0, "validation": 3}\n')
    rewind_run_log(log, 0)
    assert os.listdir(tmp_path) == []
