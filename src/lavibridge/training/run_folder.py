"""The run folder: whether a run may start or resume in it, and the files written before the first step.

recipe.yaml  environment.json  log.jsonl  rejected.jsonl  samples/  checkpoints/step-N/
align.jsonl  align.safetensors (alignment/progress.py)  .lock (core/lock.py)
"""

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lavibridge.core.errors import RunError
from lavibridge.core.files import read_json, write_atomic, write_json
from lavibridge.core.identity import library_versions
from lavibridge.core.lock import is_lock_file
from lavibridge.data.base import open_dataset
from lavibridge.data.pictures.rejected import RejectedPictures
from lavibridge.recipes.recipe import Recipe, dump_recipe, make_recipe, may_change_on_resume
from lavibridge.recipes.recipe_text import read_recipe_yaml
from lavibridge.recipes.sections import kind_of_section
from lavibridge.training.checkpoints.checkpoint import CHECKPOINT_STATE, saved_checkpoints
from lavibridge.training.checkpoints.run_fingerprint import fingerprint_differences, run_fingerprint
from lavibridge.training.data.held_out import hold_out

RECIPE_FILE = "recipe.yaml"
_STARTED = ("rejected.jsonl", "environment.json")
_LIBRARIES = ("lavibridge", "torch", "transformers", "diffusers", "peft", "accelerate", "numpy", "pillow")


def check_run_folder(run: Path, recipe: Recipe, resume: bool) -> list[str]:
    """The changes since the run's last session, all of which are allowed.

    Raises RunError if a run would be overwritten, or continued with a recipe that differs otherwise.
    """
    if not (run / RECIPE_FILE).is_file():
        _check_empty(run)
        if resume:
            raise RunError(f"{run} holds no run to resume: leave --resume out, or give the run's folder")
        return []
    if not resume:
        raise RunError(f"{run} holds a run already: add --resume to continue it, or choose another --out")
    kept = flatten_recipe(make_recipe(read_recipe_yaml(run / RECIPE_FILE)).model_dump(mode="json"))
    now = flatten_recipe(recipe.model_dump(mode="json"))
    changed = {
        key: f"{key} was {kept.get(key)!r}, is {now.get(key)!r}"
        for key in sorted(kept.keys() | now.keys())
        if kept.get(key) != now.get(key)
    }
    refuse_recipe_changes(
        run, [text for key, text in changed.items() if not may_change_on_resume(recipe, key)]
    )
    return [text for key, text in changed.items() if may_change_on_resume(recipe, key)]


def refuse_recipe_changes(run: Path, changed: Sequence[str]) -> None:
    """Raise RunError if there are changes; it names all of them."""
    if changed:
        listed = "".join(f"\n  {text}" for text in changed)
        raise RunError(
            f"{run} cannot continue, as these have changed:{listed}\nChange it back, or choose another --out"
        )


def changed_run_inputs(run: Path, recipe: Recipe) -> list[str]:
    """The differences between the data and models that a finished run used and those there are now.

    LaviError where the data or a model is missing.
    """
    kept = read_json(saved_checkpoints(run)[-1] / CHECKPOINT_STATE)["basis"]
    dataset, _ = hold_out(
        open_dataset(kind_of_section(recipe.data), recipe.data, RejectedPictures()),
        recipe.training.validation,
    )
    return fingerprint_differences(kept, run_fingerprint(recipe, dataset, int(kept["processes"])))


def _check_empty(run: Path) -> None:
    """Raise RunError if a new run would lie among other files."""
    if run.exists() and not run.is_dir():
        raise RunError(f"{run} is a file: choose another --out")
    # What a start leaves behind that failed on its data or was killed while writing.
    foreign = [
        path.name
        for path in run.glob("*")
        if path.name not in _STARTED and not path.name.endswith(".partial") and not is_lock_file(path)
    ]
    if foreign:
        raise RunError(f"{run} exists and is not a run ({foreign[0]} is in it): choose another --out")


def write_run_record(run: Path, recipe: Recipe, device: torch.device, trained: Mapping[str, int]) -> None:
    """Write the environment and the resolved recipe, which makes the folder a run's."""
    write_json(
        run / "environment.json", _environment(device) | {f"trained_{k}": v for k, v in trained.items()}
    )
    write_atomic(run / RECIPE_FILE, dump_recipe(recipe))


def rewind_run_log(log: Path, step: int) -> None:
    """Remove from a log what a killed session wrote after its last checkpoint, as those steps come again.

    At step 0 that is the whole log, including the measurement before the first step.
    """
    if not log.is_file():
        return
    if step == 0:
        log.unlink()
        return
    kept = []
    *whole, _ = log.read_text(encoding="utf-8", errors="replace").split("\n")  # the last may be cut off
    for line in whole:
        try:
            is_past = json.loads(line)["step"] <= step
        except (ValueError, KeyError, TypeError):
            is_past = False
        if is_past:
            kept.append(f"{line}\n")
    write_atomic(log, "".join(kept))


def _environment(device: torch.device) -> dict[str, Any]:
    """Versions, machine and device."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu"
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "device": str(device),
        "device_name": name,
        "threads": torch.get_num_threads(),
        **library_versions(*_LIBRARIES),
    }


def flatten_recipe(mapping: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested mappings as one, by dotted path."""
    return dict(_flat(mapping, above))


def _flat(mapping: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
