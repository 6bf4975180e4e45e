"""Imports ELLA's released file, which holds only the connector; ELLA leaves both models unchanged.

    ella-sd1.5-tsc-t5xl.safetensors     93 tensors, 66,820,608 weights

The sizes come from the tensors, except the number of heads, which no tensor shows: it is 8, as published,
unless ``connector`` overrides it. ELLA was trained with texts padded to 128 tokens, and its connector sees
the padding although T5 does not; set ``see_padding: false`` for the flexible length of the published code.
Its authors ran T5 in float16.

Hu et al. 2024, arXiv 2403.05135.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lavibridge.bridge import Bridge
from lavibridge.core.errors import ModelError
from lavibridge.core.weight_files import read_named_weights
from lavibridge.interop.compatibility import check_width_compatibility, load_compatible_weights
from lavibridge.vision.base import VisionModel

_PUBLISHED: Mapping[str, Any] = {"max_tokens": 128, "see_padding": "connector"}
_HEADS = 8
_BLOCKS = "connector.perceiver_blocks."


def import_ella(
    path: Path,
    language: Mapping[str, Any],
    vision: Mapping[str, Any] | VisionModel,
    connector: Mapping[str, Any],
) -> Bridge:
    """Load a released connector between the two models that it was trained with.

    Raises ModelError if the file holds no ELLA connector or does not fit the models.
    """
    weights = read_named_weights(path)
    config, text_width, context = read_ella_sizes(weights, path)
    bridge = Bridge.compose(
        language={**_PUBLISHED, **language},
        vision=vision,
        connector={**config, **connector},
        language_lora=None,
        vision_lora=None,
    )
    check_width_compatibility(bridge, text_width, context, path)
    load_compatible_weights(bridge.connector, weights, path)
    return bridge


def read_ella_sizes(weights: Mapping[str, Tensor], path: Path) -> tuple[dict[str, Any], int, int]:
    """Read the connector's options, the width of the text features and the width of the conditioning."""
    needed = ("connector.latents", "connector.proj_in.weight", "time_embedding.linear_1.weight")
    missing = [name for name in needed if name not in weights or weights[name].ndim != 2]
    if missing:
        raise ModelError(
            f"{path} is not an ELLA file: it lacks {', '.join(missing)}; found {len(weights)} tensors such "
            f"as {', '.join(sorted(weights)[:3])}"
        )
    latents, width = weights["connector.latents"].shape
    time_width, channels = weights["time_embedding.linear_1.weight"].shape
    blocks = {name.removeprefix(_BLOCKS).partition(".")[0] for name in weights if name.startswith(_BLOCKS)}
    config = {
        "kind": "ella",
        "read": "last",
        "latents": latents,
        "blocks": max(1, len(blocks)),
        "heads": _HEADS,
        "time_channels": channels,
        "time_width": time_width,
    }
    return config, weights["connector.proj_in.weight"].shape[1], width
