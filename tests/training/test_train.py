"""Whole runs: resumed ones equal straight ones bit for bit, every ending leaves a checkpoint."""

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from run_folder import rows, same, tensors

from lavibridge import BridgePipeline
from lavibridge.bridge import Bridge
from lavibridge.core.errors import DataError, NotFiniteError, RunError
from lavibridge.generation.contact_sheet import contact_sheet
from lavibridge.recipes.recipe import Recipe, load_recipe, make_recipe
from lavibridge.training.checkpoints.checkpoint import saved_checkpoints
from lavibridge.training.data.batches import BatchLoader, TrainingPass
from lavibridge.training.train import train

Toy = Callable[..., Recipe]


@pytest.mark.parametrize(
    ("changed", "starts"),
    [
        ({"workers": 2, "schedule": "cosine"}, (4, 1)),
        ({"workers": 0, "ema": None, "accumulate": 1, "preview_every": 0}, (4,)),
        ({"workers": 0, "latent_cache_gb": 0.0, "weighting": "min_snr", "preview_every": 0}, (4,)),
    ],
)
def test_k_steps_and_the_rest_equal_all_steps_bit_for_bit(
    toy: Toy, tmp_path: Path, changed: dict[str, Any], starts: tuple[int, ...]
) -> None:
    """With every dropout on, over an epoch's end and the warm-up's, with average and optimiser included."""
    settings = {"batch": 2, "accumulate": 2, "preview_every": 2, "warmup": 3, "steps": 6, **changed}
    straight = train(toy(training=settings), tmp_path / "straight")
    broken = tmp_path / "broken"
    train(toy(training={**settings, "checkpoint_every": 1, "keep_checkpoints": None}), broken)
    assert not same(straight / "checkpoints/step-6", broken / "checkpoints/step-5")
    keys = ("step", "loss", "loss_by_time", "gradient_norm", "lr")
    for kept in starts:
        for folder in saved_checkpoints(broken)[kept:]:
            shutil.rmtree(folder)
        workers = 0 if changed["workers"] else 2  # how pictures are read is not what they are
        train(toy(training={**settings, "workers": workers}), broken, resume=True)
        assert [[row[key] for key in keys] for row in rows(broken)] == [
            [row[key] for key in keys] for row in rows(straight)
        ]
        assert same(straight / "checkpoints/step-6", broken / "checkpoints/step-6")


def test_a_run_folder_holds_what_is_promised(toy: Toy, tmp_path: Path) -> None:
    recipe = toy(training={"steps": 3, "checkpoint_every": 1, "keep_checkpoints": 2, "preview_every": 2})
    run = train(recipe, tmp_path / "run")
    assert load_recipe(run / "recipe.yaml") == recipe
    assert json.loads((run / "environment.json").read_text())["device"] == "cpu"
    assert [path.name for path in saved_checkpoints(run)] == ["step-2", "step-3"]
    assert {path.name for path in (run / "samples").iterdir()} == {"step-0.png", "step-2.png"}
    row = rows(run)[-1]
    assert set(row) == {
        "step",
        "loss",
        "loss_by_time",
        "gradient_norm",
        "lr",
        "images_per_second",
        "data_wait",
        "seconds",
        "peak_memory_mib",
    }
    assert set(row["gradient_norm"]) == {"language_lora", "connector", "vision_lora"}
    assert len(row["loss_by_time"]) == 10
    assert row["peak_memory_mib"] > 10


def test_a_run_loads_as_its_averaged_bridge_and_previews_are_its_drawings(toy: Toy, tmp_path: Path) -> None:
    run = train(toy(training={"steps": 2, "preview_every": 2}), tmp_path / "run")
    bridge = Bridge.from_pretrained(run, device="cpu")
    kept = tensors(run / "checkpoints/step-2/ema")
    own = bridge.connector.state_dict()
    assert all(torch.equal(own[name.split(":")[1]], v) for name, v in kept.items() if "connector" in name)
    prompts = ("a red circle", "a blue star")
    images = BridgePipeline(bridge)(prompts, num_inference_steps=2, guidance_scale=5.0, seed=0).images
    drawn = contact_sheet([[image] for image in images], prompts, ["step 2"])
    assert drawn.tobytes() == Image.open(run / "samples/step-2.png").convert("RGB").tobytes()


def test_a_run_is_never_overwritten_nor_resumed_as_another(toy: Toy, tmp_path: Path) -> None:
    run = train(toy(training={"steps": 1}), tmp_path / "run")
    with pytest.raises(RunError, match="add --resume"):
        train(toy(training={"steps": 1}), run)
    for sections, said in (
        ({"training": {"batch": 3}}, r"processes = 2 x 1 x 1 = 2 pictures, is 3 x 1 x 1 = 3"),
        ({"lora": {"vision": {"rank": 2}}}, r"lora\.vision\.rank was 4, is 2"),
        ({"data": {"scenes": 11}}, r"data\.scenes was 10, is 11"),
    ):
        with pytest.raises(RunError, match=said):
            train(toy(**sections), run, resume=True)
    before = saved_checkpoints(run)[-1].stat().st_mtime_ns
    train(toy(training={"steps": 1}), run, resume=True)  # finished already
    assert saved_checkpoints(run)[-1].stat().st_mtime_ns == before


def test_other_folders_are_left_alone(toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("mine")
    with pytest.raises(RunError, match=r"it holds letters\.txt"):
        train(toy(), tmp_path)
    with pytest.raises(RunError, match="is a file"):
        train(toy(), tmp_path / "letters.txt")
    with pytest.raises(RunError, match="no run to resume"):
        train(toy(), tmp_path / "new", resume=True)
    assert not (tmp_path / "new").exists()


def test_bad_pictures_above_the_limit_stop_before_anything_and_leave_the_list(
    toy: Toy, tmp_path: Path
) -> None:
    for name in ("a", "b", "c"):
        Image.new("RGB", (20, 20)).save(tmp_path / f"{name}.png")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG")
    (tmp_path / "pairs.tsv").write_text("".join(f"{name}.png\tx\n" for name in ("a", "b", "c", "bad")))
    data = {"kind": "tsv", "path": str(tmp_path / "pairs.tsv"), "size": 16}
    run = tmp_path / "run"

    def recipe(limit: float) -> Recipe:
        content = toy(training={"steps": 1}).model_dump()
        return make_recipe({**content, "data": {**data, "max_rejected": limit}})

    with pytest.raises(DataError, match="1 of 4 pictures are unusable"):
        train(recipe(0.1), run)
    assert [path.name for path in run.iterdir()] == ["rejected.jsonl"]
    train(recipe(0.3), run)  # the same folder: nothing had been begun
    assert json.loads((run / "rejected.jsonl").read_text())["file"] == "bad.png"
    assert (tmp_path / "bad.png").read_bytes() == b"\x89PNG"
    (tmp_path / "pairs.tsv").write_text("".join(f"{name}.png\ty\n" for name in ("a", "b", "c", "bad")))
    with pytest.raises(RunError, match=r"the data was 3 pictures, .* is 3 pictures, "):
        train(recipe(0.3), run, resume=True)


def interrupt_when(run: Path, lines: int, number: int) -> threading.Thread:
    """Send this process a signal once the log has some lines."""

    def wait() -> None:
        log = run / "log.jsonl"
        for _ in range(6000):
            if log.exists() and len(log.read_text().splitlines()) >= lines:
                os.kill(os.getpid(), number)
                return
            time.sleep(0.01)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_ctrl_c_leaves_a_checkpoint_that_goes_on_as_if_nothing_had_been(toy: Toy, tmp_path: Path) -> None:
    run = tmp_path / "run"
    recipe = toy(training={"steps": 400, "schedule": "cosine"})
    before = signal.getsignal(signal.SIGINT)
    thread = interrupt_when(run, 2, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, run)
    thread.join()
    assert signal.getsignal(signal.SIGINT) is before
    last = rows(run)[-1]["step"]
    assert [path.name for path in saved_checkpoints(run)] == [f"step-{last}"]
    assert 2 <= last < 400
    interrupt_when(run, last + 2, signal.SIGTERM)
    with pytest.raises(SystemExit) as left:
        train(recipe, run, resume=True)
    assert left.value.code == 143
    assert [row["step"] for row in rows(run)] == list(range(1, len(rows(run)) + 1))


def test_a_nan_leaves_a_checkpoint_of_the_weights_before_it(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = BatchLoader.draw

    def poisoned(self: BatchLoader, step: int, turn: int) -> TrainingPass:
        draw = plain(self, step, turn)
        if step == 2:
            draw.noise[1, 0, 0, 0] = float("nan")
        return draw

    monkeypatch.setattr(BatchLoader, "draw", poisoned)
    run = tmp_path / "run"
    with pytest.raises(NotFiniteError, match="step 3") as caught:
        train(toy(training={"max_skips": 0}), run)
    assert len(caught.value.names) == 1
    assert [path.name for path in saved_checkpoints(run)] == ["step-2"]
    monkeypatch.undo()
    train(toy(), run, resume=True)
    straight = train(toy(), tmp_path / "straight")
    assert same(run / "checkpoints/step-4", straight / "checkpoints/step-4")


def test_bfloat16_keeps_trained_weights_in_float32(toy: Toy, tmp_path: Path) -> None:
    run = train(toy(training={"steps": 2, "precision": "bfloat16"}), tmp_path / "run")
    assert all(value.dtype == torch.float32 for value in tensors(run / "checkpoints/step-2").values())
    train(toy(training={"steps": 1}), tmp_path / "other")  # another precision in the same program


@pytest.mark.parametrize(
    "changed", [{"lora": {"language": None, "vision": None}}, {"training": {"ema": None}}]
)
def test_without_lora_or_average(toy: Toy, tmp_path: Path, changed: dict[str, Any]) -> None:
    sections = {**changed, "training": {**changed.get("training", {}), "steps": 2}}
    run = train(toy(**sections), tmp_path / "run")
    assert Bridge.from_pretrained(run, device="cpu")
    assert (run / "checkpoints/step-2/ema").is_dir() == (changed.get("training") is None)


def test_a_scale_far_from_the_vision_model_s_is_said() -> None:
    from lavibridge import Bridge
    from lavibridge.training.build_bridge import conditioning_scale_warning

    bridge = Bridge.compose(
        {"kind": "llama", "source": "random"}, {"kind": "sd", "source": "random"}, "linear", None, None
    )
    assert conditioning_scale_warning(bridge, ["a red circle", "a blue square"]) is None
    for parameter in bridge.connector.parameters():
        parameter.data *= 1000
    note = conditioning_scale_warning(bridge, ["a red circle", "a blue square"])
    assert note is not None
    assert "was trained with about 1:" in note
