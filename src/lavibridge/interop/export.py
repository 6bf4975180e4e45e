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
from lavibridge.bridge.states import need_whole
from lavibridge.core.config import did_you_mean
from lavibridge.core.errors import RecipeError
from lavibridge.core.files import new_folder, whole_folder
from lavibridge.core.lock import hold
from lavibridge.interop.folder import write_diffusers
from lavibridge.interop.lora_files import write_comfyui, write_kohya

FORMATS = {
    "peft": Bridge.save_pretrained,
    "diffusers": write_diffusers,
    "comfyui": write_comfyui,
    "kohya": write_kohya,
}


def export(bridge: Bridge, format: str, out: str | PathLike[str]) -> Path:
    """Write a bridge into the folder ``out``, which must be empty or new, and return it.

    Raises what ``place_for`` does, and ModelError where the bridge has nothing that the format can hold.
    """
    folder = place_for(format, out)
    need_whole(bridge, "export")
    with hold(folder), whole_folder(folder):
        FORMATS[format](bridge, folder)
    return folder


def place_for(format: str, out: str | PathLike[str]) -> Path:
    """The folder to write; raises RecipeError for an unknown format, RunError where something is there."""
    if format not in FORMATS:
        known = tuple(FORMATS)
        raise RecipeError(
            f"there is no format '{format}' to export{did_you_mean(format, known)} (formats: "
            f"{', '.join(known)})"
        )
    return new_folder(out)
