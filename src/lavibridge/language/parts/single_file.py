"""Text encoders inside a single-file checkpoint, by Diffusers' own conversion.

    cond_stage_model.transformer.*            CLIP of Stable Diffusion 1, as Transformers names it
    cond_stage_model.model.*                  OpenCLIP of Stable Diffusion 2
    conditioner.embedders.0.transformer.*     the first encoder of SDXL, as Transformers names it
    conditioner.embedders.1.model.*           the second, as OpenCLIP names it
    text_encoders.clip_l, clip_g, t5xxl       those of Stable Diffusion 3 and FLUX, as Transformers names them

A file has no tokenizers; they are in the folder of its configuration.
"""

from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from lavibridge.core.errors import ModelError
from lavibridge.core.placement import Placement
from lavibridge.core.safetensors_file import SafetensorsHeader, read_tensors

_T5 = "text_encoders.t5xxl.transformer."
_PREFIXES: Mapping[str, tuple[str, ...]] = {
    "text_encoder": (
        "cond_stage_model.transformer.",
        "cond_stage_model.model.",
        "conditioner.embedders.0.transformer.",
        "text_encoders.clip_l.transformer.",
    ),
    "text_encoder_2": ("conditioner.embedders.1.model.", "text_encoders.clip_g.transformer."),
    "text_encoder_3": (),
}
"""Folder of an encoder -> what its tensors' names may begin with, if it is no T5."""
_OPEN_CLIP = ("cond_stage_model.model.", "conditioner.embedders.1.model.")
_PROJECTION = "text_projection.weight"


def encoder_prefix(header: SafetensorsHeader, folder: str, class_name: str) -> str | None:
    """Return how the names of an encoder's tensors begin in a file; None if the file lacks the encoder."""
    prefixes = (_T5,) if class_name.startswith("T5") else _PREFIXES.get(folder, ())
    return next((each for each in prefixes if any(name.startswith(each) for name in header.tensors)), None)


def load_encoder_from_file(
    model: Any, settings: Mapping[str, Any], header: SafetensorsHeader, prefix: str, placement: Placement
) -> Any:
    """Return the class ``model`` of Transformers with the weights whose names begin with ``prefix``.

    ``settings`` is its config.json. Raises ModelError if weights are missing or have other shapes.
    """
    names = [name for name in header.tensors if name.startswith(prefix)]
    tensors = read_tensors(header, names, placement.dtype)
    config = model.config_class.from_dict(dict(settings))
    try:
        state = _converted(tensors, prefix, config)
        made, report = model.from_pretrained(
            None, config=config, state_dict=state, dtype=placement.dtype, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ModelError(
            f"the text encoder in '{header.file}' ({prefix}*) cannot be loaded: {reason}"
        ) from error
    wrong = sorted({*report["missing_keys"], *(each[0] for each in report["mismatched_keys"])})
    if wrong:
        raise ModelError(
            f"the text encoder in '{header.file}' ({prefix}*) lacks {len(wrong)} weights of its "
            f"configuration or has other shapes, among them {wrong[0]}: set vision.config to the folder of "
            "its own configurations"
        )
    return made


def _converted(tensors: dict[str, Tensor], prefix: str, config: Any) -> dict[str, Tensor]:
    """Return tensors under the names of Transformers."""
    # Importing Diffusers' loaders takes seconds, and few models come out of one file.
    from diffusers.loaders.single_file_utils import convert_ldm_clip_checkpoint, convert_open_clip_checkpoint

    if prefix in _OPEN_CLIP:
        return dict(convert_open_clip_checkpoint(_Sizes(config), tensors, prefix=prefix))
    state: dict[str, Tensor] = dict(convert_ldm_clip_checkpoint(tensors, prefix))
    if prefix.startswith("text_encoders.clip_l") and _PROJECTION not in state:
        state[_PROJECTION] = torch.eye(
            config.hidden_size
        )  # left out where it changes nothing, as Diffusers has it
    return state


class _Sizes:
    """Stands for a model whose sizes alone the conversion reads."""

    def __init__(self, config: Any) -> None:
        self.config = config
