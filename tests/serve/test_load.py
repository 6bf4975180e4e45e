"""A thousand clients at once, against `lavi serve` in a process of its own; figures: benchmarks/serve.py."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "serve.py"


@pytest.mark.slow
def test_a_thousand_clients_get_a_picture_or_are_asked_to_come_again() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "load"], capture_output=True, text=True, check=False, timeout=1800
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    answers = found["answers"]
    assert set(answers) <= {"picture", "429"}
    assert sum(answers.values()) == found["waves"] * found["clients at once"]
    assert answers["picture"] == found["pictures drawn"]
    assert found["left in the queue"] == 0
    first, *_, last = found["server's MiB after each wave"]
    assert last < first + 64
    assert found["kill -9"]["seconds"] < 10
    assert found["server left with"] == 0
