"""Writes a benchmark's result to benchmarks/results, in a file named after the machine and the commit."""

import json
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def record(name: str, result: dict[str, Any]) -> Path:
    """Write and print the result, in a new file; returns the file."""
    commit, found = _commit(), machine()
    value = {
        "benchmark": name,
        "commit": commit,
        "machine": found,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        **result,
    }
    text = json.dumps(value, indent=2)
    RESULTS.mkdir(exist_ok=True)
    stem = f"{name}_{found['name']}_{commit}"
    path, number = RESULTS / f"{stem}.json", 1
    while path.exists():  # a result that a page quotes is never overwritten
        number += 1
        path = RESULTS / f"{stem}_{number}.json"
    path.write_text(text + "\n", encoding="utf-8")
    print(text)
    return path


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=RESULTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "no-commit"


def machine() -> dict[str, Any]:
    """Describe the machine: processor, vector instructions and usable cores, without a host name."""
    processor = platform.processor() or platform.machine()
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), flags=re.M)
        processor = found.group(1) if found else processor
    except OSError:
        pass
    cores = len(os.sched_getaffinity(0)) if platform.system() == "Linux" else os.cpu_count() or 1
    short = re.sub(r"[^a-z0-9]+", "-", processor.lower()).strip("-")[:32].strip("-")
    vectors = torch.backends.cpu.get_cpu_capability()  # one processor's name can stand for several
    return {
        "name": f"{short}-{vectors.lower()}-{cores}-cores",
        "processor": processor,
        "vectors": vectors,
        "cores": cores,
        "system": platform.system(),
        "python": platform.python_version(),
    }
