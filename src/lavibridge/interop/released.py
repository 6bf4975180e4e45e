"""Loads released weights of other projects as bridges.

import_released("lavi-bridge", "t5_unet/", language="t5-large", vision="stable-diffusion-v1-4/")
import_released("ella", "ella-sd1.5-tsc-t5xl.safetensors", language="flan-t5-xl/", vision="sd-1.5/")
import_released("rouwei", "t5gemma.safetensors", language="t5gemma-2b-2b-ul2/", vision="rouwei.safetensors")
"""

from collections.abc import Mapping
from os import PathLike, fspath
from types import MappingProxyType
from typing import Any

import torch

from lavibridge.bridge import Bridge
from lavibridge.core.device import pick_device
from lavibridge.core.errors import ModelError, RecipeError, did_you_mean
from lavibridge.core.paths import expand_path
from lavibridge.interop.ella import import_ella
from lavibridge.interop.lavi_bridge import import_lavi_bridge
from lavibridge.interop.rouwei import import_rouwei
from lavibridge.vision.base import VisionModel

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_FORMATS = {"lavi-bridge": import_lavi_bridge, "ella": import_ella, "rouwei": import_rouwei}


def import_released(
    format: str,
    path: str | PathLike[str],
    language: str | PathLike[str] | Mapping[str, Any],
    vision: str | PathLike[str] | Mapping[str, Any] | VisionModel,
    connector: Mapping[str, Any] = _NOTHING,
    device: str | torch.device = "auto",
) -> Bridge:
    """Load released weights as a bridge between the two models that they were trained with.

    ``format`` is lavi-bridge, ella or rouwei; ``path`` is the released folder or file. ``language`` and
    ``vision`` are a source or a mapping with ``source``, as in ``Bridge.compose``. Options in ``language``
    and ``connector`` override those of the published training (tokens, padding, read-out, dropout). Raises
    RecipeError for an unknown format and ModelError for files that do not fit.
    """
    if format not in _FORMATS:
        known = tuple(_FORMATS)
        raise RecipeError(
            f"unknown format '{format}' of released weights{did_you_mean(format, known)} "
            f"(choose from {', '.join(known)})"
        )
    place = expand_path(path)
    if not place.exists():
        raise ModelError(f"there is no file or folder {place}: give the released folder or file")
    options = dict(language) if isinstance(language, Mapping) else {"source": fspath(language)}
    model = vision if isinstance(vision, Mapping | VisionModel) else {"source": fspath(vision)}
    return _FORMATS[format](place, options, model, connector).to(pick_device(str(device))).eval()
