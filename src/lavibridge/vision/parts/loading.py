"""One model of a Diffusers folder: with its weights, or on torch's meta device with its sizes only."""

import sys
from typing import Any

import diffusers
import torch
from safetensors import SafetensorError

from lavibridge.core.device import is_meta
from lavibridge.core.files import resolve_source
from lavibridge.core.sources import cannot_load, read_model_json


def load_part(model: Any, source: str, revision: str | None, folder: str, dtype: torch.dtype) -> Any:
    """The class ``model`` of the diffusers library from the sub-folder ``folder`` of ``source``.

    Only safetensors are read. Raises ModelError where it cannot be loaded.
    """
    if is_meta():
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


def quieten() -> None:
    """Keep the library's loading notes to itself, and its bar where nobody watches."""
    diffusers.utils.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        diffusers.utils.logging.disable_progress_bar()
