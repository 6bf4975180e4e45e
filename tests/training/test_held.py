"""A run's folder is its own while it runs: whoever else would write there is told, and the run unhurt."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from lavibridge.training.checkpoints.checkpoint import check_checkpoint_files, saved_checkpoints

LONG = ("training.steps=3000", "training.checkpoint_every=0", "training.validation=null")


def wait_for(sessions: Any, child: int, run: Path, count: int) -> None:
    """Until the log has some lines."""
    late = time.monotonic() + 60
    while not (run / "log.jsonl").is_file() or (run / "log.jsonl").read_bytes().count(b"\n") < count:
        assert time.monotonic() < late, sessions.said(child)
        time.sleep(0.02)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_second_training_is_told_who_runs_and_the_first_ends_whole(
    sessions: Any, tmp_path: Path, processes: int
) -> None:
    run = tmp_path / "run"
    first = sessions.train(*LONG, out=run, processes=processes)
    wait_for(sessions, first[0], run, 2)
    (run / "checkpoints/.step-7.partial").mkdir(parents=True)  # as while it writes
    for resume, others in ((True, 1), (False, 1), (True, 2)):
        refused = sessions.train(*LONG, out=run, resume=resume, processes=others)
        assert sessions.end(refused) == [1] * others
        said = " ".join(sessions.said(refused[0]).split())
        assert f"{run} is in use: process {first[0]} on " in said
        assert f"lavi train {sessions.recipe}" in said
    assert (run / "checkpoints/.step-7.partial").is_dir()
    before = (run / "log.jsonl").read_bytes().count(b"\n")
    wait_for(sessions, first[0], run, before + 2)
    os.kill(first[0], signal.SIGTERM)
    assert sessions.end(first) == [143] * processes
    (folder,) = saved_checkpoints(run)
    check_checkpoint_files(folder)
    log = (run / "log.jsonl").read_bytes().splitlines()
    assert folder.name == f"step-{len(log)}"
    assert not (run / ".lock").exists()


def test_a_run_that_was_killed_holds_its_folder_no_longer(sessions: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (first,) = sessions.train(*LONG, "training.workers=2", out=run)
    wait_for(sessions, first, run, 2)
    os.kill(first, signal.SIGKILL)
    sessions.end([first])
    sessions.trained("training.steps=2", out=run, resume=True)
