"""What a run has left in its folder, for tests that compare runs."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file


def rows(run: Path) -> list[dict[str, Any]]:
    """The log, a dictionary a step."""
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of every safetensors file below a folder, by file and name."""
    return {
        f"{path.relative_to(folder)}:{name}": value
        for path in sorted(folder.rglob("*.safetensors"))
        for name, value in load_file(path).items()
    }


def same(first: Path, second: Path) -> bool:
    """Whether two folders hold the same tensors, and any at all."""
    a, b = tensors(first), tensors(second)
    return a.keys() == b.keys() and bool(a) and all(torch.equal(a[name], b[name]) for name in a)
