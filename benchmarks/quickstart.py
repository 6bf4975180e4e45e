"""Measures the wall time of `lavi quickstart` by phase, and its scores, in a fresh run folder.

python benchmarks/quickstart.py
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import record

LAVI = Path(sys.executable).parent / "lavi"

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "quickstart"
        start = time.perf_counter()
        subprocess.run([str(LAVI), "quickstart", "--out", str(out)], check=True, stdout=subprocess.DEVNULL)
        wall = time.perf_counter() - start
        results = json.loads((out / "results.json").read_text())
        rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    conditions = {"trained bridge": results, **results["compared"]}
    record(
        "quickstart",
        {
            "seconds": {"all": wall, **results["seconds"]},
            "steps": rows[-1]["step"],
            "peak memory MiB": rows[-1]["peak_memory_mib"],
            "scores": {name: each["metrics"]["world"]["categories"] for name, each in conditions.items()},
        },
    )
