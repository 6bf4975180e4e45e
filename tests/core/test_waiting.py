"""The command sets OpenMP's spin count before torch reads it; a user's own choice stays."""

import os
import subprocess
import sys

import pytest

from lavibridge.core.thread_spinning import SPIN_COUNT, SPIN_VARIABLES

PROGRAM = """
import os, sys
from lavibridge.cli import main
sys.argv = ["lavi", "--help"]
was_there = "torch" in sys.modules
try:
    main.main()
except SystemExit:
    pass
print("torch" in sys.modules, was_there, os.environ.get("GOMP_SPINCOUNT"), file=sys.stderr)
"""


def answer(program: str, **chosen: str) -> list[str]:
    """The last line that a fresh process prints."""
    clean = {name: value for name, value in os.environ.items() if name not in SPIN_VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", program], env=clean | chosen, capture_output=True, text=True, check=True
    )
    return done.stderr.splitlines()[-1].split()


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [({}, SPIN_COUNT), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_the_command_sets_the_spin_count_where_nobody_has(chosen: dict[str, str], expected: str) -> None:
    _, was_there, count = answer(PROGRAM, **chosen)
    assert was_there == "False", "torch reads it on import"
    assert count == expected


def test_after_torch_it_is_too_late_and_nothing_is_pretended() -> None:
    late = (
        "import torch, os, sys; from lavibridge.core.thread_spinning import set_spin_count; "
        "set_spin_count(); "
    )
    assert answer(late + "print(os.environ.get('GOMP_SPINCOUNT'), file=sys.stderr)") == ["None"]


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp prints its settings on Linux only")
def test_libgomp_reads_what_the_command_has_set() -> None:
    shown = PROGRAM.replace('"--help"', '"doctor"')
    clean = {name: value for name, value in os.environ.items() if name not in SPIN_VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", shown],
        env=clean | {"OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"GOMP_SPINCOUNT = '{SPIN_COUNT}'" in done.stderr
    assert f"GOMP_SPINCOUNT={SPIN_COUNT}" in done.stdout
