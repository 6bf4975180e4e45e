"""Measures the time of `lavi --help`, the median of ten fresh processes, and whether it imports torch.

python benchmarks/startup.py
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from record import record

LAVI = Path(sys.executable).parent / "lavi"
RUNS = 10


def seconds() -> float:
    """Measure one run of `lavi --help`."""
    start = time.perf_counter()
    subprocess.run([str(LAVI), "--help"], check=True, capture_output=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    seconds()  # fills the file cache
    times = sorted(seconds() for _ in range(RUNS))
    program = "import sys, lavibridge.cli.main; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    record(
        "startup",
        {
            "seconds": {"median": statistics.median(times), "least": times[0], "most": times[-1], "n": RUNS},
            "imports torch": done.stdout.strip() == "True",
        },
    )
