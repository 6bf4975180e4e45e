"""Loads one model of a Diffusers folder, with its weights or on torch's meta device."""

import sys
from typing import Any

import diffusers
import torch
from safetensors import SafetensorError

from lavibridge.core.errors import ModelError
from lavibridge.core.files import resolve_source
from lavibridge.core.sources import cannot_load, read_model_json
from lavibridge.vision.base import VisionModel


def load_diffusers_part(
    model: Any, config: VisionModel.Config, folder: str, dtype: torch.dtype, is_meta: bool
) -> Any:
    """Load the diffusers class ``model`` from the sub-folder ``folder`` of ``config.source``.

    ``is_meta`` builds it from its configuration on the meta device, without weights. Weights load from
    safetensors only. Raises ModelError if it cannot be loaded.
    """
    source, revision = config.source, config.revision
    if is_meta:
        with torch.device("meta"):
            return model.from_config(read_model_json(source, f"{folder}/config.json", revision)).to(dtype)
    try:
        return model.from_pretrained(
            resolve_source(source),
            subfolder=folder,
            revision=revision,
            torch_dtype=dtype,
            use_safetensors=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise cannot_load("vision model", source, folder, error) from error


def load_scheduler(source: str, revision: str | None) -> Any:
    """Load the scheduler of a Diffusers folder. Raises ModelError if its class is not in diffusers."""
    settings = read_model_json(source, "scheduler/scheduler_config.json", revision) or {}
    found = getattr(diffusers, str(settings.get("_class_name", "")), None)
    if found is None:
        raise ModelError(f"'{source}' has no scheduler/scheduler_config.json naming a Diffusers class")
    return found.from_config(settings)


def quieten_diffusers() -> None:
    """Silence the loading messages of diffusers, and its progress bar if stderr is no terminal."""
    diffusers.utils.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        diffusers.utils.logging.disable_progress_bar()
