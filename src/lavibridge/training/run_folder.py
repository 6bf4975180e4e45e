"""Checks whether a run may start or resume in a folder, and writes the files before the first step.

recipe.yaml  environment.json  log.jsonl  rejected.jsonl  samples/  checkpoints/step-N/
align.jsonl  align.safetensors (alignment/progress.py)  .lock (core/lock.py)
"""

import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lavibridge.core.errors import LaviError, RunError
from lavibridge.core.files import parse_json, write_atomic, write_json
from lavibridge.core.identity import library_versions
from lavibridge.core.lock import is_lock_file
from lavibridge.data.base import open_dataset
from lavibridge.data.pictures.rejected import RejectedPictures
from lavibridge.recipes.recipe import Recipe, dump_recipe, make_recipe, may_change_on_resume
from lavibridge.recipes.recipe_text import read_recipe_yaml
from lavibridge.recipes.sections import kind_of_section
from lavibridge.training.checkpoints.checkpoint import read_checkpoint_state, saved_checkpoints
from lavibridge.training.checkpoints.run_fingerprint import fingerprint_differences, run_fingerprint
from lavibridge.training.data.held_out import hold_out

RECIPE_FILE = "recipe.yaml"
_STARTED = ("rejected.jsonl", "environment.json")
_LIBRARIES = ("lavibridge", "torch", "transformers", "diffusers", "peft", "accelerate", "numpy", "pillow")


def check_run_folder(run: Path, recipe: Recipe, resume: bool) -> list[str]:
    """Return the allowed changes of the recipe since the run's last session.

    Raises RunError if the new run would overwrite another, or if the recipe has other changes.
    """
    if not (run / RECIPE_FILE).is_file():
        _check_empty(run)
        if resume:
            raise RunError(f"{run} holds no run to resume: leave --resume out, or give a run's folder")
        return []
    if not resume:
        raise RunError(f"{run} already holds a run: add --resume to continue it, or choose another --out")
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
    """Raise RunError, which names all changes, if there are any."""
    if changed:
        listed = "".join(f"\n  {text}" for text in changed)
        raise RunError(
            f"{run} cannot continue, because of these changes:{listed}\nUndo them, or choose another --out"
        )


def changed_run_inputs(run: Path, recipe: Recipe) -> list[str]:
    """Describe how the data and models have changed since a finished run used them.

    Raises LaviError if the data or a model is missing.
    """
    kept = read_checkpoint_state(saved_checkpoints(run)[-1])["basis"]
    dataset, _ = hold_out(
        open_dataset(kind_of_section(recipe.data), recipe.data, RejectedPictures()),
        recipe.training.validation,
    )
    return fingerprint_differences(kept, run_fingerprint(recipe, dataset, int(kept["processes"])))


def _check_empty(run: Path) -> None:
    """Raise RunError if the folder of a new run holds other files."""
    if run.exists() and not run.is_dir():
        raise RunError(f"{run} is a file: choose another --out")
    # A start that fails on its data, or is killed as it writes, leaves only these files behind.
    foreign = [
        path.name
        for path in run.glob("*")
        if path.name not in _STARTED and not path.name.endswith(".partial") and not is_lock_file(path)
    ]
    if foreign:
        raise RunError(f"{run} exists but is not a run: it holds {foreign[0]}; choose another --out")


def write_run_record(run: Path, recipe: Recipe, device: torch.device, trained: Mapping[str, int]) -> None:
    """Write the environment and the resolved recipe, which mark the folder as a run."""
    write_json(
        run / "environment.json", _environment(device) | {f"trained_{k}": v for k, v in trained.items()}
    )
    write_atomic(run / RECIPE_FILE, dump_recipe(recipe))


def rewind_run_log(log: Path, step: int) -> None:
    """Remove a killed session's records after its last checkpoint, because those steps will be repeated.

    At step 0 this removes the whole log, including the measurement before the first step.
    """
    if not log.is_file():
        return
    if step == 0:
        log.unlink()
        return
    kept = []
    *whole, _ = log.read_text(encoding="utf-8", errors="replace").split("\n")  # the last may be incomplete
    for line in whole:
        try:
            is_past = parse_json(line, str(log))["step"] <= step
        except (LaviError, KeyError, TypeError):
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
    """Flatten nested mappings into one, with dotted paths as keys."""
    return dict(_flat(mapping, above))


def _flat(mapping: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
