"""The run folder: what may be begun or gone on with, and what is noted down before the first step.

recipe.yaml  environment.json  log.jsonl  rejected.jsonl  samples/  checkpoints/step-N/
"""

import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from lavibridge.core.errors import RunError
from lavibridge.core.files import write_atomic, write_json
from lavibridge.core.log import console
from lavibridge.recipes.read import read_yaml
from lavibridge.recipes.recipe import Recipe, dump_recipe, make_recipe

RECIPE = "recipe.yaml"
FIXED = (
    "language.",
    "vision.",
    "connector.",
    "lora.",
    "data.",
    "training.seed",
    "training.batch",
    "training.accumulate",
    "training.ema",
)
"""What decides which weights there are and which samples they meet; the rest may change between sessions."""
LIBRARIES = ("lavibridge", "torch", "transformers", "diffusers", "peft", "accelerate", "numpy", "pillow")


def check_run(run: Path, recipe: Recipe, resume: bool) -> None:
    """RunError where a run would be overwritten, or gone on with under another recipe."""
    if not (run / RECIPE).is_file():
        check_empty(run)
        if resume:
            raise RunError(f"{run} holds no run to go on with: leave --resume out, or give the run's folder")
        return
    if not resume:
        raise RunError(f"{run} holds a run already: add --resume to go on with it, or choose another --out")
    kept = flat(make_recipe(read_yaml(run / RECIPE)).model_dump(mode="json"))
    now = flat(recipe.model_dump(mode="json"))
    changed = [
        f"{key} was {kept.get(key)!r}, is {now.get(key)!r}"
        for key in sorted(kept.keys() | now.keys())
        if kept.get(key) != now.get(key) and key.startswith(FIXED)
    ]
    if changed:
        raise RunError(
            f"{run} cannot be gone on with under another recipe: {'; '.join(changed[:4])}. "
            "Change it back, or choose another --out"
        )


def check_empty(run: Path) -> None:
    """RunError where something else is in the place of a new run."""
    if run.exists() and not run.is_dir():
        raise RunError(f"{run} is a file: choose another --out")
    # rejected.jsonl is all that a start which failed on its data leaves behind.
    foreign = [path.name for path in run.glob("*") if path.name != "rejected.jsonl"]
    if foreign:
        raise RunError(f"{run} exists and is not a run ({foreign[0]} is in it): choose another --out")


def note_run(run: Path, recipe: Recipe, device: torch.device, trained: Mapping[str, int]) -> None:
    """Write the resolved recipe and the environment."""
    write_atomic(run / RECIPE, dump_recipe(recipe))
    write_json(
        run / "environment.json", environment(device) | {f"trained_{k}": v for k, v in trained.items()}
    )


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, machine and device."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu"
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "device": str(device),
        "device_name": name,
        "threads": torch.get_num_threads(),
        **{library: _version(library) for library in LIBRARIES},
    }


def say_trained(parts: Mapping[str, int], rates: Mapping[str, float]) -> None:
    """Say what will be trained, on stderr."""
    for part, count in parts.items():
        if count:
            console.print(
                f"trained: {part}, {count:,} weights, lr {rates[part]:g}", markup=False, soft_wrap=True
            )


def flat(mapping: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested mappings as one, by dotted path."""
    return dict(_flat(mapping, above))


def _flat(mapping: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"
