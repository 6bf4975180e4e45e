"""Exports a bridge to the formats of other tools.

    bridge      the whole bridge as one safetensors file, without the frozen models
    peft        a saved bridge: language_lora/ and vision_lora/ in PEFT's layout, and connector/
    diffusers   a pipeline's folder with LoRA merged into the denoiser; it contains the bridge, for prompts
    comfyui     vision_lora.safetensors with ComfyUI's names
    kohya       vision_lora.safetensors with the names of kohya's scripts

`Bridge.from_pretrained`, the command line and the nodes for ComfyUI read the single file. The last two hold
only the denoiser's LoRA: the bridge must still encode the prompts.
"""

from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from lavibridge.bridge import Bridge
from lavibridge.bridge.bridge_file import DenoiserInterface, StoredModels, pack_saved_bridge
from lavibridge.bridge.choices import model_of_choice
from lavibridge.bridge.saved_bridge import SavedBridge, locate_saved_bridge, read_saved_bridge
from lavibridge.bridge.stored_models import files_identity
from lavibridge.bridge.weight_checks import require_whole_weights
from lavibridge.core.errors import RecipeError, RunError, did_you_mean
from lavibridge.core.files import require_empty_folder, write_folder_atomic
from lavibridge.core.lock import hold_lock
from lavibridge.core.log import console
from lavibridge.core.paths import expand_path
from lavibridge.core.sources import SAFETENSORS
from lavibridge.interop.diffusers_folder import write_diffusers_folder
from lavibridge.interop.lora_files import write_comfyui_lora, write_kohya_lora

_SINGLE_FILE = "bridge"
_FOLDERS = {
    "peft": Bridge.save_pretrained,
    "diffusers": write_diffusers_folder,
    "comfyui": write_comfyui_lora,
    "kohya": write_kohya_lora,
}
_FORMATS = (_SINGLE_FILE, *_FOLDERS)


def export(bridge: Bridge, format: str, out: str | PathLike[str]) -> Path:
    """Write a bridge into ``out``, a new file for the format bridge or else a new or empty folder; return it.

    ``format`` is bridge, peft, diffusers, comfyui or kohya. Raises RecipeError for an unknown format or a
    file that does not end in .safetensors, RunError if ``out`` exists, and ModelError if the format cannot
    hold this bridge.
    """
    place = export_place(format, out)
    require_whole_weights(bridge, "export")
    if format == _SINGLE_FILE:
        _write_bridge_file(bridge, place)
        return place
    with hold_lock(place), write_folder_atomic(place):
        _FOLDERS[format](bridge, place)
    return place


def export_place(format: str, out: str | PathLike[str]) -> Path:
    """Check the file or folder to write, as `export` does."""
    if format not in _FORMATS:
        raise RecipeError(
            f"unknown export format '{format}'{did_you_mean(format, _FORMATS)} (choose from "
            f"{', '.join(_FORMATS)})"
        )
    if format != _SINGLE_FILE:
        return require_empty_folder(out)
    file = expand_path(out)
    if file.suffix.lower() != SAFETENSORS:
        raise RecipeError(
            f"--out: the format 'bridge' is one file, so end its name in .safetensors, found {out}"
        )
    if file.exists():
        raise RunError(f"{file} exists already: choose a new file")
    return file


def export_saved_bridge(run: str | PathLike[str], out: str | PathLike[str]) -> Path:
    """Write a saved bridge as one file and return it; reads the models' configurations, but no weights.

    ``run`` is as in `Bridge.from_pretrained`. Raises as `export` does, and RunError if there is no bridge or
    ``run`` is a single file.
    """
    file = export_place(_SINGLE_FILE, out)
    stored = read_saved_bridge(locate_saved_bridge(run))
    if stored.packed is not None:
        raise RunError(f"{stored.path} is the single file of a bridge already: copy it")
    _pack(stored, DenoiserInterface.of(model_of_choice("vision", stored.vision, torch.device("meta"))), file)
    return file


def _write_bridge_file(bridge: Bridge, file: Path) -> None:
    """Write the single file of a bridge in memory."""
    with TemporaryDirectory() as folder:
        bridge.save_pretrained(folder)
        _pack(read_saved_bridge(Path(folder)), DenoiserInterface.of(bridge.vision), file)


def _pack(stored: SavedBridge, denoiser: DenoiserInterface, file: Path) -> None:
    """Pack a folder, and note which models nobody else can find."""
    models = StoredModels(
        language=files_identity(stored.language), vision=files_identity(stored.vision), denoiser=denoiser
    )
    pack_saved_bridge(stored.path, file, models)
    for name, options in (("language", stored.language), ("vision", stored.vision)):
        if Path(options["source"]).is_absolute():
            console.print(
                f"note: the file names the {name} model by its place on this machine ({options['source']}); "
                "for use on another one, train or compose the bridge with the model's hub id",
            )
