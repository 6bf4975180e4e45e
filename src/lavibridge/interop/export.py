"""A bridge in the formats of other tools.

    peft        language_lora/ and vision_lora/ as PEFT reads them, connector/ beside: a saved bridge
    diffusers   a pipeline's folder, LoRA merged into the denoiser, the bridge in it for prompts
    comfyui     vision_lora.safetensors under names that ComfyUI reads
    kohya       vision_lora.safetensors under the names of kohya's scripts

The last two hold the denoiser's LoRA alone. Prompts still have to go through the bridge, as no other tool
knows its language model and connector.
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

    Raises what ``export_folder`` does, and ModelError where the bridge has nothing that the format can hold.
    """
    folder = export_folder(format, out)
    require_whole_weights(bridge, "export")
    with hold_lock(folder), write_folder_atomic(folder):
        _FORMATS[format](bridge, folder)
    return folder


def export_folder(format: str, out: str | PathLike[str]) -> Path:
    """The folder to write; raises RecipeError for an unknown format, RunError where something is there."""
    if format not in _FORMATS:
        known = tuple(_FORMATS)
        raise RecipeError(
            f"there is no format '{format}' to export{did_you_mean(format, known)} (formats: "
            f"{', '.join(known)})"
        )
    return require_empty_folder(out)
