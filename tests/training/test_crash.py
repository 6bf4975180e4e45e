"""Killed at any moment, a run goes on as if nothing had been: the same weights, nothing lost or torn."""

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from run_folder import tensors

from lavibridge.training.checkpoints.checkpoint import check_checkpoint_files, saved_checkpoints

STEPS = 12
OFTEN = (f"training.steps={STEPS}", "training.checkpoint_every=2", "training.keep_checkpoints=2")


def newest(run: Path) -> int:
    """The step of the newest checkpoint, after a look at all of them; 0 without any."""
    found = saved_checkpoints(run)
    for folder in found:
        check_checkpoint_files(folder)
    return int(found[-1].name.removeprefix("step-")) if found else 0


def compare(run: Path, expected: dict[str, torch.Tensor]) -> None:
    """Weights, average, optimiser and log have to be those of a run that was never killed."""
    found = tensors(run / f"checkpoints/step-{STEPS}")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-10", "step-12"]


def campaign(sessions: Any, place: Path, kills: int, seed: int) -> None:
    """Kill runs at random moments, as often as asked for, and bring every one of them to its end."""
    begun = time.monotonic()
    straight = sessions.trained(*OFTEN, out=place / "straight")
    longest = time.monotonic() - begun
    expected = tensors(straight / f"checkpoints/step-{STEPS}")
    assert expected
    chance = random.Random(seed)
    done, number = 0, 0
    while done < kills:
        run, reached, code, number = place / f"run-{number}", 0, -1, number + 1
        while code != 0:
            (child,) = sessions.train(*OFTEN, out=run, resume=(run / "recipe.yaml").is_file())
            if done < kills:
                time.sleep(chance.uniform(0, 0.8 * longest))
                os.kill(child, signal.SIGKILL)
            (code,) = sessions.end([child])
            assert code in (0, -signal.SIGKILL), sessions.said(child)
            done += code != 0
            assert newest(run) >= reached, "a checkpoint was lost"
            reached = newest(run)
        compare(run, expected)
        shutil.rmtree(run)


def test_runs_killed_at_random_moments_end_with_the_weights_of_a_run_that_was_not(
    sessions: Any, tmp_path: Path
) -> None:
    campaign(sessions, tmp_path, kills=2, seed=0)


@pytest.mark.slow
def test_sixty_kills(sessions: Any, tmp_path: Path) -> None:
    campaign(sessions, tmp_path, kills=60, seed=1)
