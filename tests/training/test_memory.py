"""A run's memory is flat: what 200 steps need is enough for 2,000."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lavibridge.recipes.recipe import Recipe, dump_recipe

MOST = 1.03


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the log has no peak memory there")
def test_two_thousand_steps_need_no_more_memory_than_two_hundred(
    toy: Callable[..., Recipe], tmp_path: Path
) -> None:
    """In a process of its own, as the log's figure is the most that a process has used so far."""
    validation = {"every": 100, "share": 0.3, "pictures": 2, "times": 2}
    recipe = toy(
        vision={"kind": "pixart"},
        connector={"kind": "linear"},
        training={"steps": 2000, "batch": 1, "checkpoint_every": 100, "validation": validation},
    )
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    run = tmp_path / "run"
    command = [sys.executable, "-m", "lavibridge", "train", str(tmp_path / "recipe.yaml"), "--out", str(run)]
    subprocess.run(command, check=True, capture_output=True, timeout=900)
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    peak = {row["step"]: row["peak_memory_mib"] for row in rows if "loss" in row}
    print(peak[200], peak[2000])
    assert peak[2000] <= MOST * peak[200], (peak[200], peak[2000])
