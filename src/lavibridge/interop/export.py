"""Exports a bridge to the formats of other tools.

    peft        a saved bridge: language_lora/ and vision_lora/ in PEFT's layout, and connector/
    diffusers   a pipeline's folder with LoRA merged into the denoiser; it contains the bridge, for prompts
    comfyui     vision_lora.safetensors with ComfyUI's names
    kohya       vision_lora.safetensors with the names of kohya's scripts

The last two hold only the denoiser's LoRA. The bridge must still encode the prompts, because no other tool
supports its language model and connector.
"""

from os import PathLike
from pathlib import Path

from lavibridge.bridge import Bridge
from lavibridge.bridge.weight_checks import require_whole_weights
from lavibridge.core.errors import RecipeError, did_you_mean
from lavibridge.core.files import require_empty_folder, write_folder_atomic
from lavibridge.core.lock import hold_lock
from lavibridge.interop.diffusers_folder import write_diffusers_folder
from lavibridge.interop.lora_files import write_comfyui_lora, write_kohya_lora

_FORMATS = {
    "peft": Bridge.save_pretrained,
    "diffusers": write_diffusers_folder,
    "comfyui": write_comfyui_lora,
    "kohya": write_kohya_lora,
}


def export(bridge: Bridge, format: str, out: str | PathLike[str]) -> Path:
    """Write a bridge into the folder ``out``, which must be empty or new, and return it.

    ``format`` is peft, diffusers, comfyui or kohya. Raises RecipeError for an unknown format, RunError if
    ``out`` holds files, and ModelError if the format cannot hold this bridge.
    """
    folder = export_folder(format, out)
    require_whole_weights(bridge, "export")
    with hold_lock(folder), write_folder_atomic(folder):
        _FORMATS[format](bridge, folder)
    return folder


def export_folder(format: str, out: str | PathLike[str]) -> Path:
    """Check the folder to write. Raises RecipeError for an unknown format, RunError if it holds files."""
    if format not in _FORMATS:
        known = tuple(_FORMATS)
        raise RecipeError(
            f"unknown export format '{format}'{did_you_mean(format, known)} (choose from {', '.join(known)})"
        )
    return require_empty_folder(out)
