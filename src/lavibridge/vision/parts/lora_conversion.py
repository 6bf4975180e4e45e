"""Converts LoRA files for transformers with Diffusers' own readers, which know the layouts of other tools.

Kohya's scripts, ComfyUI, XLabs and AI Toolkit name the layers of FLUX, Qwen-Image, Z-Image and others as
their authors do, where three layers of Diffusers are one. Such names match no layer here before conversion.
"""

from collections.abc import Mapping
from typing import Any

import diffusers
from torch import Tensor

from lavibridge.core.errors import ModelError


def convert_lora_tensors(model: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """Return the tensors by Diffusers' names; None if Diffusers has no LoRA reader for the model's pipeline.

    None for U-Nets too, whose published names are all known (bridge/lora_names.py). Raises ModelError if the
    reader refuses the file.
    """
    pipeline = getattr(diffusers, model.pipeline_class or "", None)
    reader = getattr(pipeline, "lora_state_dict", None)
    if reader is None or model.denoiser_folder == "unet":
        return None
    try:
        made = reader(dict(tensors))
    except Exception as error:  # the readers fail in whatever way an unknown key leads to
        reason = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
        raise ModelError(
            f"no key of the LoRA file, such as {min(tensors)}, names a layer of '{model.config.source}', and "
            f"Diffusers cannot convert the file ({reason}): choose a file that was made for this model"
        ) from error
    return dict(made[0] if isinstance(made, tuple) else made)
