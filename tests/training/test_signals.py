"""SIGTERM and Ctrl-C: the step is finished, a checkpoint written, and the exit code says why."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lavibridge.training.checkpoints.checkpoint import check_checkpoint_files, saved_checkpoints
from lavibridge.training.signals import InterruptSignals

LONG = ("training.steps=2000", "training.checkpoint_every=0")


def steps(run: Path) -> list[int]:
    log = run / "log.jsonl"
    return [json.loads(line)["step"] for line in log.read_text().splitlines()] if log.is_file() else []


def wait_for(sessions: Any, child: int, run: Path, count: int) -> None:
    """Until the log has some lines."""
    late = time.monotonic() + 60
    while not (run / "log.jsonl").is_file() or (run / "log.jsonl").read_bytes().count(b"\n") < count:
        assert time.monotonic() < late, sessions.said(child)
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_the_step_writes_a_checkpoint_and_is_the_exit_code(
    sessions: Any, tmp_path: Path, number: int, code: int
) -> None:
    run = tmp_path / "run"
    (child,) = sessions.train(*LONG, out=run)
    wait_for(sessions, child, run, 2)
    os.kill(child, number)
    assert sessions.end([child]) == [code]
    assert "stopping after this step" in sessions.said(child)
    assert [path.name for path in saved_checkpoints(run)] == [f"step-{steps(run)[-1]}"]
    check_checkpoint_files(saved_checkpoints(run)[-1])


def test_what_nohup_has_ignored_stays_ignored(sessions: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ["train", str(sessions.recipe), *LONG, "--out", str(run)]
    child = sessions.begin(arguments, {"NOHUP": "1"})
    wait_for(sessions, child, run, 2)
    os.kill(child, signal.SIGHUP)
    wait_for(sessions, child, run, len(steps(run)) + 3)
    os.kill(child, signal.SIGTERM)
    assert sessions.end([child]) == [143]


def test_whoever_reads_the_messages_may_leave_and_the_run_goes_on(sessions: Any, tmp_path: Path) -> None:
    """As `lavi train ... 2>&1 | tee log` does when tee is killed, and when Ctrl-C ends both."""
    run, pipe = tmp_path / "run", tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    child = sessions.begin(["train", str(sessions.recipe), *LONG, "--out", str(run)], {}, pipe)
    wait_for(sessions, child, run, 2)
    os.close(reader)
    wait_for(sessions, child, run, len(steps(run)) + 3)
    os.kill(child, signal.SIGINT)
    assert sessions.end([child]) == [130]
    assert [path.name for path in saved_checkpoints(run)] == [f"step-{steps(run)[-1]}"]


def test_a_second_ctrl_c_does_not_wait(sessions: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (child,) = sessions.train(*LONG, out=run)
    wait_for(sessions, child, run, 2)
    os.kill(child, signal.SIGSTOP)  # so that both signals are there before the step ends
    os.kill(child, signal.SIGINT)
    os.kill(child, signal.SIGTERM)
    os.kill(child, signal.SIGCONT)
    (code,) = sessions.end([child])
    assert code in (-signal.SIGTERM, 130, 143)
    for folder in saved_checkpoints(run):
        check_checkpoint_files(folder)
    assert len(steps(run)) < 2000


def test_a_signal_to_one_process_ends_all_of_them_alike(sessions: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    children = sessions.train(*LONG, out=run, processes=2)
    wait_for(sessions, children[0], run, 2)
    os.kill(children[1], signal.SIGTERM)
    assert sessions.end(children) == [143, 143]
    assert [path.name for path in saved_checkpoints(run)] == [f"step-{steps(run)[-1]}"]


def test_the_signal_of_one_process_becomes_that_of_all() -> None:
    here = InterruptSignals()
    assert not here.share(lambda number: number)
    assert here.share(lambda number: max(number, int(signal.SIGTERM)))
    with pytest.raises(SystemExit) as left:
        here.leave()
    assert left.value.code == 143


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", "auto"])
@pytest.mark.parametrize(
    "launcher",
    [
        ("torch.distributed.run", "--nproc_per_node", "2"),
        ("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"),
    ],
)
def test_real_launchers(sessions: Any, tmp_path: Path, launcher: tuple[str, ...], device: str) -> None:
    """Both start two processes, and hand a SIGTERM on to them; a launcher's own exit code is its own."""
    command = [sys.executable, "-m", *launcher, "-m", "lavibridge", "train", str(sessions.recipe)]
    command += [f"training.device={device}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "run")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "run")]
    assert steps(tmp_path / "run") == [1, 2, 3, 4]
    kept = json.loads((tmp_path / "run/checkpoints/step-4/state.json").read_text())
    assert kept["basis"]["processes"] == 2
    run = tmp_path / "long"
    running = subprocess.Popen([*command, *LONG, "--out", str(run)], env=environment, stderr=subprocess.PIPE)
    late = time.monotonic() + 200
    while len(steps(run)) < 2:
        assert time.monotonic() < late
        time.sleep(0.2)
    running.terminate()
    running.communicate(timeout=120)
    assert running.returncode != 0
    assert [path.name for path in saved_checkpoints(run)] == [f"step-{steps(run)[-1]}"]
