"""Writes, verifies and loads checkpoints, which are self-contained and written atomically.

    checkpoints/step-N/  bridge/                 the trained weights, as `Bridge.save_pretrained` writes them
                         ema/                    their moving average, in the same form
                         optimizer.safetensors   the optimiser's tensors by part and name
                         state.json              step, seconds, skips, and the run's fingerprint
                         manifest.json           size and SHA-256 of every file; written last

A checkpoint is written into a hidden folder, synced to disk, and renamed in one step: whenever a run is
killed, its earlier checkpoints stay intact. No file is a pickle.

A checkpoint needs no generator state: order, flips, captions, noise, timesteps and latents are functions of
(seed, position), each pass seeds dropout from (seed, step, pass, process), and the learning rate is a
function of the step. Weights, average, optimiser state and step are the whole state of a run.
"""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from lavibridge.bridge import saved_bridge
from lavibridge.bridge.saved_bridge import CHECKPOINT_MANIFEST, saved_checkpoints
from lavibridge.core.errors import LaviError, RunError
from lavibridge.core.files import file_sha256, read_json, read_json_object, write_json
from lavibridge.core.paths import path_below
from lavibridge.core.safetensors_file import load_tensors
from lavibridge.core.tensors import check_tensors_finite, save_tensors
from lavibridge.recipes.training_section import TrainingSection
from lavibridge.training.checkpoints.run_fingerprint import RunFingerprint
from lavibridge.training.loop import TrainingState
from lavibridge.training.optimization import load_optimizer_tensors, optimizer_tensors

CHECKPOINT_STATE = "state.json"
_FORMAT = 2


def save_checkpoint(run: Path, state: TrainingState, fingerprint: RunFingerprint, keep: int | None) -> Path:
    """Write `checkpoints/step-N`, remove all but the newest `keep`, and return the new folder.

    Raises RunError if the disk cannot hold it; earlier checkpoints stay intact.
    """
    folder = run / "checkpoints"
    final = folder / f"step-{state.step}"
    partial = folder / f".step-{state.step}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        state.bridge.save_pretrained(partial / "bridge")
        if state.ema is not None:
            with state.ema.applied():
                state.bridge.save_pretrained(partial / "ema")
        save_tensors(optimizer_tensors(state.optimizer, state.parts), partial / "optimizer.safetensors")
        write_json(
            partial / CHECKPOINT_STATE,
            {
                "step": state.step,
                "seconds": round(state.seconds, 3),
                "skipped": state.skips.samples,
                "basis": asdict(fingerprint),
            },
        )
        files = describe_checkpoint_files(partial)
        write_json(
            partial / CHECKPOINT_MANIFEST,
            {"format": _FORMAT, "files": files, "seal": checkpoint_manifest_hash(files)},
        )
        if final.exists():  # an incomplete copy, which is no checkpoint: replace it
            os.replace(final, folder / f".step-{state.step}.old")
        os.replace(partial, final)
        _sync(folder)
        _sync(run)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise RunError(
            f"the checkpoint of step {state.step} cannot be written: {error}; "
            f"the earlier ones in {folder} are intact. Free some disk space and continue with --resume"
        ) from error
    prune_checkpoints(run, keep)
    return final


def is_run_trained(run: Path, settings: TrainingSection) -> bool:
    """Whether a run has taken all its steps or used all its time."""
    done = saved_checkpoints(run)
    if not done:
        return False
    state = read_checkpoint_state(done[-1])
    limit = math.inf if settings.max_minutes is None else settings.max_minutes * 60
    return bool(state["step"] >= settings.steps or state["seconds"] >= limit)


def prune_checkpoints(run: Path, keep: int | None) -> None:
    """Remove all but the newest `keep` checkpoints, and the remains of interrupted writes."""
    for path in (run / "checkpoints").glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)
    if keep is not None:
        for path in saved_checkpoints(run)[:-keep]:
            hidden = path.with_name(f".{path.name}.old")  # hide first: a partial one must not look complete
            os.replace(path, hidden)
            shutil.rmtree(hidden, ignore_errors=True)


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """Read step, seconds and fingerprint of a checkpoint. Raises RunError if one of its files has changed."""
    check_checkpoint_files(folder)
    return read_checkpoint_state(folder)


def read_checkpoint_state(folder: Path) -> dict[str, Any]:
    """Read step, seconds and fingerprint of a checkpoint without a look at its other files.

    Raises RunError if state.json is damaged.
    """
    path = folder / CHECKPOINT_STATE
    try:
        kept = read_json_object(path)
    except LaviError as error:
        raise RunError(f"{path} is damaged: {error}") from None
    kinds = {"step": int, "seconds": float | int, "skipped": dict, "basis": dict}
    wrong = [name for name, kind in kinds.items() if not isinstance(kept.get(name), kind)]
    skipped = kept.get("skipped") or {}
    if not wrong and not all(step.isdigit() and isinstance(names, list) for step, names in skipped.items()):
        wrong = ["skipped"]
    if wrong:
        raise RunError(f"{path} is damaged: its '{wrong[0]}' is missing or invalid; take another copy")
    return kept


def load_checkpoint(folder: Path, state: TrainingState, kept: Mapping[str, Any]) -> None:
    """Load a checkpoint into a new state; ``kept`` is the result of `read_checkpoint`.

    Raises RunError or ModelError if it does not fit the state.
    """
    has_ema = (folder / "ema").is_dir()
    if has_ema != (state.ema is not None):
        raise RunError(
            f"{folder} was trained {'with' if has_ema else 'without'} a moving average of the weights: "
            "restore the earlier training.ema"
        )
    if state.ema is not None:
        _load_bridge_weights(folder / "ema", state)
        state.ema.take_over()
    _load_bridge_weights(folder / "bridge", state)
    remembered = load_tensors(folder / "optimizer.safetensors")
    check_tensors_finite(remembered, f"the optimiser's state in {folder}")
    load_optimizer_tensors(state.optimizer, state.parts, remembered)
    state.skips.samples = {int(step): tuple(names) for step, names in kept["skipped"].items()}
    state.step = int(kept["step"])
    state.seconds = float(kept["seconds"])


def _load_bridge_weights(folder: Path, state: TrainingState) -> None:
    """Load the weights of a saved bridge into the state's bridge."""
    bridge = state.bridge
    saved_bridge.load_saved_weights(
        saved_bridge.read_saved_bridge(folder), bridge.language, bridge.connector, bridge.vision
    )


def describe_checkpoint_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Sync a folder to disk, and return size and SHA-256 of each of its files."""
    paths = sorted(folder.rglob("*"))
    for path in (*paths, folder):
        _sync(path)
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for path in paths
        if path.is_file()
    }


def checkpoint_manifest_hash(files: Mapping[str, Any]) -> str:
    """Hash the manifest's content, to distinguish a damaged manifest from a damaged file."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def check_checkpoint_files(folder: Path) -> None:
    """Compare every file with the manifest. Raises RunError, which names the first changed file."""
    remedy = f"Delete {folder} to continue from the checkpoint before it, if there is one"
    try:
        manifest = read_json(folder / CHECKPOINT_MANIFEST)
        version, files = manifest["format"], manifest["files"]
        is_whole = version != _FORMAT or (
            manifest["seal"] == checkpoint_manifest_hash(files)
            and all({"bytes", "sha256"} <= each.keys() for each in files.values())
        )
    except (LaviError, KeyError, TypeError, AttributeError):
        is_whole = False
    if not is_whole:
        raise RunError(f"{folder / CHECKPOINT_MANIFEST} is damaged. {remedy}")
    if version != _FORMAT:
        raise RunError(
            f"{folder / CHECKPOINT_MANIFEST} has format {version!r}, but this version of lavibridge reads "
            f"only {_FORMAT}. Continue with the version that wrote it (the run's environment.json names it), "
            "or start a new run"
        )
    for name, expected in files.items():
        path = path_below(folder, name)
        size = path.stat().st_size if path.is_file() else -1
        if size != expected["bytes"] or file_sha256(path) != expected["sha256"]:
            raise RunError(f"{path} is {'missing' if size < 0 else 'damaged'}. {remedy}")


def _sync(path: Path) -> None:
    """Sync a file or a folder to disk."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
