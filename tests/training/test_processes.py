"""Several processes: the same run as one with a larger batch, with whole weights and with shared ones."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from run_folder import rows, same, tensors

from lavibridge.training.checkpoints.checkpoint import saved_checkpoints

STILL = ("lora.language.dropout=0", "lora.vision.dropout=0", "connector.dropout=0")
"""Dropout is drawn by process: with it, two processes are as good as one, but not equal to it."""
SHARED = "training.sharding=fsdp2"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in rows(run)]


@pytest.fixture(scope="module")
def alone(sessions: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process with a batch of four."""
    out: Path = sessions.trained("training.batch=4", *STILL, out=tmp_path_factory.mktemp("alone") / "run")
    return out


def test_two_processes_take_the_steps_of_one_with_twice_the_batch(
    sessions: Any, alone: Path, tmp_path: Path
) -> None:
    children = sessions.train(*STILL, "training.preview_every=2", out=tmp_path / "two", processes=2)
    assert sessions.end(children) == [0, 0], sessions.said(children[0])
    assert losses(tmp_path / "two") == pytest.approx(losses(alone), rel=1e-6)
    one, two = (tensors(run / "checkpoints/step-4") for run in (alone, tmp_path / "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        if "optimizer" not in name:
            torch.testing.assert_close(two[name], value, rtol=1e-3, atol=5e-5)  # Adam magnifies roundings
    assert sorted(path.name for path in (tmp_path / "two/samples").iterdir()) == [
        f"step-{step}.png" for step in (0, 2, 4)
    ]
    assert str(tmp_path / "two") in sessions.said(children[0])
    assert sessions.said(children[1]) == ""  # one of them speaks


def test_processes_without_a_gpu_find_each_other_by_themselves(sessions: Any, tmp_path: Path) -> None:
    """With `training.device=auto`, which each had taken for a run of its own."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here, and `auto` takes it")
    run = sessions.trained("training.device=auto", "training.steps=1", out=tmp_path / "run", processes=2)
    kept = json.loads((run / "checkpoints/step-1/state.json").read_text())
    assert kept["basis"]["processes"] == 2
    assert len(losses(run)) == 1


def test_processes_of_another_launcher_train_together(sessions: Any, tmp_path: Path) -> None:
    """Open MPI's variables, on one machine, with the port that torchrun would say."""
    arguments = ["train", str(sessions.recipe), "training.device=auto", "training.steps=1"]
    port = str(free_port())
    children = [
        sessions.begin(
            [*arguments, "--out", str(tmp_path / "run")],
            {
                **{f"OMPI_COMM_WORLD_{what}": str(rank) for what in ("RANK", "LOCAL_RANK")},
                **{f"OMPI_COMM_WORLD_{what}": "2" for what in ("SIZE", "LOCAL_SIZE")},
                "MASTER_PORT": port,
            },
        )
        for rank in range(2)
    ]
    assert sessions.end(children) == [0, 0], sessions.said(children[0])
    kept = json.loads((tmp_path / "run/checkpoints/step-1/state.json").read_text())
    assert kept["basis"]["processes"] == 2
    assert [sessions.said(child).count(str(tmp_path / "run")) > 0 for child in children] == [True, False]


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2"}, "does not know where to meet"),
        ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}, "does not know where to meet"),
        ({"WORLD_SIZE": "2"}, "are inconsistent"),
    ],
)
def test_who_cannot_meet_the_others_trains_nothing(
    sessions: Any, tmp_path: Path, environment: dict[str, str], said: str
) -> None:
    child = sessions.begin(["train", str(sessions.recipe), "--out", str(tmp_path / "runs/run")], environment)
    assert sessions.end([child]) == [1]
    assert said in " ".join(sessions.said(child).split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("language", "targets"), [("llama", "null"), ("llama", "[q_proj]"), ("pair", "null")]
)
def test_two_processes_train_what_reads_an_inner_layer(
    sessions: Any, tmp_path: Path, language: str, targets: str
) -> None:
    """Named targets also put LoRA above the layer, where no gradient comes from."""
    inner = (
        "connector.read={layer: 1}",
        f"lora.language.targets={targets}",
        f"language={{kind: {language}, source: random, max_tokens: 24}}",
        "training.steps=3",
    )
    run = sessions.trained(*STILL, *inner, out=tmp_path / "run", processes=2)
    assert len(losses(run)) == 3


def test_shared_weights_give_the_same_losses_and_a_checkpoint_for_any_number_of_processes(
    sessions: Any, alone: Path, tmp_path: Path
) -> None:
    shared = sessions.trained(
        *STILL, SHARED, "training.preview_every=2", "training.steps=3", out=tmp_path / "run", processes=2
    )
    assert losses(shared) == pytest.approx(losses(alone)[:3], rel=1e-5)
    assert (shared / "samples/step-2.png").is_file()
    sessions.trained(*STILL, "training.batch=4", out=shared, resume=True)  # one process reads it
    assert losses(shared) == pytest.approx(losses(alone), rel=1e-5)
    kept = json.loads((shared / "checkpoints/step-3/bridge/bridge.json").read_text())
    assert (kept["language"]["kind"], kept["vision"]["kind"]) == ("llama", "sd")


def test_two_processes_go_on_bit_for_bit(sessions: Any, tmp_path: Path) -> None:
    settings = ("training.accumulate=2", "training.schedule=cosine", "training.workers=2")
    straight = sessions.trained(*settings, out=tmp_path / "straight", processes=2)
    broken = sessions.trained(*settings, "training.checkpoint_every=1", out=tmp_path / "broken", processes=2)
    for folder in saved_checkpoints(broken)[1:]:
        remove(folder)
    sessions.trained(*settings, "training.workers=0", out=broken, resume=True, processes=2)
    assert losses(straight) == losses(broken)
    assert same(straight / "checkpoints/step-4", broken / "checkpoints/step-4")


def test_another_number_of_processes_needs_the_same_number_of_pictures(
    sessions: Any, alone: Path, tmp_path: Path
) -> None:
    run = sessions.trained(*STILL, "training.steps=1", "training.batch=4", out=tmp_path / "run")
    (refused,) = sessions.train(*STILL, out=run, resume=True)
    assert sessions.end([refused]) == [1]
    assert "x processes = 4 x 1 x 1 = 4 pictures, is 2 x 1 x 1 = 2" in " ".join(
        sessions.said(refused).split()
    )
    sessions.trained(*STILL, out=run, resume=True, processes=2)
    assert losses(run) == pytest.approx(losses(alone), rel=1e-6)


def remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def test_processes_that_align_share_a_batch_and_end_together(sessions: Any, tmp_path: Path) -> None:
    """Each measures with noised latents of its own, and all leave when the first has lost its patience."""
    align = "{steps: 30, batch: 8, lr: 1.0e-12, noised_latents: 8, measure_every: 1, patience: 2}"
    settings = ("vision={kind: sd, source: mini-sd}", "data.size=64", "data.scenes=40", "training.steps=0")
    run = sessions.trained(*settings, f"training.align={align}", out=tmp_path / "run", processes=2)
    steps = [json.loads(line)["step"] for line in (run / "align.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
    assert steps[-1] < 30
    assert [path.name for path in saved_checkpoints(run)] == ["step-0"]
    refused = sessions.train(*settings, "training.align={batch: 9}", out=tmp_path / "odd", processes=2)
    assert sessions.end(refused) == [1, 1]
    assert "2 processes cannot share" in sessions.said(refused[0])
