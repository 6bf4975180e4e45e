"""Checkpoints: complete in themselves, whole or not there, and checked before they are used.

    checkpoints/step-N/  bridge/                 the trained weights, as `Bridge.save_pretrained` writes them
                         ema/                    their moving average, in the same form
                         optimizer.safetensors   AdamW's two moments by part and name
                         state.json              step, seconds, fingerprint of the data
                         manifest.json           size and SHA-256 of every file; written last

All is written into a hidden folder beside, put on disk, and given its name in one rename: a run killed at any
moment leaves the checkpoints before it as they were. No file is a pickle.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lavibridge.bridge import store
from lavibridge.core.errors import RunError
from lavibridge.core.files import read_json, sha256, write_json
from lavibridge.core.tensors import save_tensors
from lavibridge.training.loop import State
from lavibridge.training.optim import Parts

MANIFEST = "manifest.json"
FORMAT = 1
MOMENTS = ("exp_avg", "exp_avg_sq")


def save_checkpoint(run: Path, state: State, data: str, keep: int | None) -> Path:
    """Write `checkpoints/step-N`, then remove all but the newest `keep`; returns its folder."""
    folder = run / "checkpoints"
    final = folder / f"step-{state.step}"
    partial = folder / f".step-{state.step}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        state.bridge.save_pretrained(partial / "bridge")
        if state.ema is not None:
            with state.ema.applied():
                state.bridge.save_pretrained(partial / "ema")
        save_tensors(moments(state.optimizer, state.parts), partial / "optimizer.safetensors")
        write_json(
            partial / "state.json", {"step": state.step, "seconds": round(state.seconds, 3), "data": data}
        )
        files = sorted(path for path in partial.rglob("*") if path.is_file())
        described = {
            path.relative_to(partial).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
            for path in files
        }
        for path in files:
            sync(path)
        write_json(partial / MANIFEST, {"format": FORMAT, "step": state.step, "files": described})
        if final.exists():  # the same step once more, or the ruin of a copy: the new one takes its place
            os.replace(final, folder / f".step-{state.step}.old")
        os.replace(partial, final)
        sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise RunError(
            f"the checkpoint of step {state.step} cannot be written: {error}; "
            f"the earlier ones in {folder} are whole. Make room and go on with --resume"
        ) from error
    prune(run, keep)
    return final


def checkpoints(run: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    found = (run / "checkpoints").glob(f"step-*/{MANIFEST}")
    named = [path.parent for path in found if path.parent.name.removeprefix("step-").isdigit()]
    return sorted(named, key=lambda path: int(path.name.removeprefix("step-")))


def prune(run: Path, keep: int | None) -> None:
    """Remove all but the newest `keep` checkpoints, and what broken-off writing left."""
    for path in (run / "checkpoints").glob(".step-*"):
        shutil.rmtree(path, ignore_errors=True)
    if keep is not None:
        for path in checkpoints(run)[:-keep]:
            (path / MANIFEST).unlink()  # first: a half-removed checkpoint must not count as one
            shutil.rmtree(path)


def load_checkpoint(folder: Path, state: State, data: str) -> None:
    """Put a checkpoint into a state that was just built; RunError when it is damaged or of other data."""
    check_files(folder)
    kept: dict[str, Any] = read_json(folder / "state.json")
    if kept["data"] != data:
        raise RunError(
            f"the data is not what {folder.name} was trained on (then: {kept['data']}; now: {data}). "
            "Bring the data back, or start a new run"
        )
    has_ema = (folder / "ema").is_dir()
    if has_ema != (state.ema is not None):
        raise RunError(
            f"{folder} was trained {'with' if has_ema else 'without'} a moving average: "
            "leave training.ema as it was"
        )
    if state.ema is not None:
        load_weights(folder / "ema", state)
        state.ema.take_over()
    load_weights(folder / "bridge", state)
    load_moments(state.optimizer, state.parts, load_file(folder / "optimizer.safetensors"), kept["step"])
    state.step = int(kept["step"])
    state.seconds = float(kept["seconds"])


def load_weights(folder: Path, state: State) -> None:
    """The weights of a saved bridge into the state's."""
    bridge = state.bridge
    store.load_weights(store.read(folder), bridge.language, bridge.connector, bridge.vision)


def check_files(folder: Path) -> None:
    """Compare every file with the manifest."""
    manifest = read_json(folder / MANIFEST)
    if manifest.get("format") != FORMAT:
        raise RunError(
            f"{folder / MANIFEST} has format {manifest.get('format')!r}; this version reads {FORMAT}"
        )
    for name, expected in manifest["files"].items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else -1
        if size != expected["bytes"] or sha256(path) != expected["sha256"]:
            raise RunError(
                f"{path} is {'missing' if size < 0 else 'damaged'}. "
                f"Delete {folder} to go on from the checkpoint before it, if there is one"
            )


def moments(optimizer: torch.optim.Optimizer, parts: Parts) -> dict[str, Tensor]:
    """AdamW's moments by `part/name/moment`."""
    return {
        f"{part}/{name}/{moment}": optimizer.state[parameter][moment].detach().cpu().contiguous()
        for part, parameters in parts.items()
        for name, parameter in parameters.items()
        for moment in MOMENTS
        if optimizer.state.get(parameter)
    }


def load_moments(optimizer: torch.optim.Optimizer, parts: Parts, kept: dict[str, Tensor], step: int) -> None:
    """Put the moments back by name, so that no order of weights is relied upon."""
    for part, parameters in parts.items():
        for name, parameter in parameters.items():
            if f"{part}/{name}/{MOMENTS[0]}" not in kept:
                continue
            state: dict[str, Tensor] = {"step": torch.tensor(float(step), device=parameter.device)}
            for moment in MOMENTS:
                state[moment] = kept[f"{part}/{name}/{moment}"].to(parameter.device)
            optimizer.state[parameter] = state


def sync(path: Path) -> None:
    """Have the disk hold a file or a folder before going on."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
