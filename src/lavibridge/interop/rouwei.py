"""Imports RouWei's published adapters from language models to SDXL, which hold only the connector.

    rouwei_gemma...safetensors      Gemma-3-1B-it (width 1152)   2 wide blocks    303 M weights
    ...t5gemma...safetensors        T5Gemma-2B (width 2304)      3 wide blocks    356 M weights

The sizes come from the tensors, except the number of heads, which no tensor shows: 16, as published, unless
``connector`` overrides it. T5Gemma reads the prompt and an end token, padded on the left to 512 tokens. Gemma
reads the prompt inside of its chat template, whose tokens before the prompt the adapter does not see; the
instruction in it is the publishers' and must be given as ``template``. The adapters were trained for the
SDXL model RouWei 0.8, but fit every SDXL.

Minthy, "RouWei-Gemma", 2025; read by NeuroSenko's ComfyUI_LLM_SDXL_Adapter.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lavibridge.bridge import Bridge
from lavibridge.core.errors import ModelError, RecipeError
from lavibridge.core.weight_files import read_named_weights
from lavibridge.interop.compatibility import check_width_compatibility, load_compatible_weights
from lavibridge.vision.base import VisionModel

_HEADS = 16
_T5GEMMA_WIDTH = 2304
_END = "{prompt}<eos>"
_CHAT = "<start_of_turn>user\\nINSTRUCTION\\n\\n{prompt}<end_of_turn>\\n<start_of_turn>model\\n"


def import_rouwei(
    path: Path,
    language: Mapping[str, Any],
    vision: Mapping[str, Any] | VisionModel,
    connector: Mapping[str, Any],
) -> Bridge:
    """Load a published adapter between the language model that it was trained with and an SDXL model.

    Raises ModelError if the file holds no such adapter or does not fit the models, and RecipeError without a
    ``template`` for Gemma.
    """
    weights = read_named_weights(path)
    config, text_width, context = read_rouwei_sizes(weights, path)
    is_t5gemma = text_width == _T5GEMMA_WIDTH
    if not is_t5gemma and language.get("template") is None:
        raise RecipeError(
            "this adapter was trained with the chat template of Gemma around every prompt: give "
            f"language.template (--template), which is '{_CHAT}' with the instruction of its publishers' node"
        )
    published: dict[str, Any] = {"max_tokens": config["positions"], "template": _END}
    reading: dict[str, Any] = {"padding_side": "left"}
    if not is_t5gemma:  # the token that begins every text belongs to what the adapter does not see
        published, reading = {"max_tokens": config["positions"] + 1}, {"skip": 1}
    bridge = Bridge.compose(
        language={**published, **language},
        vision=vision,
        connector={**config, **reading, **connector},
        language_lora=None,
        vision_lora=None,
    )
    check_width_compatibility(bridge, text_width, context, path)
    load_compatible_weights(bridge.connector, weights, path)
    return bridge


def read_rouwei_sizes(weights: Mapping[str, Tensor], path: Path) -> tuple[dict[str, Any], int, int]:
    """Read the connector's options, the width of the text features and the width of the conditioning."""
    needed = {
        "seq_projection.weight": 2,
        "input_position_embeddings": 3,
        "compression_queries": 3,
        "pooling_token": 3,
    }
    missing = [name for name, axes in needed.items() if name not in weights or weights[name].ndim != axes]
    if missing:
        raise ModelError(
            f"{path} is not one of RouWei's adapters: it lacks {', '.join(missing)}; found {len(weights)} "
            f"tensors such as {', '.join(sorted(weights)[:3])}"
        )
    context, text_width = weights["seq_projection.weight"].shape
    config = {
        "kind": "rouwei",
        "read": "last",
        "latents": weights["compression_queries"].shape[1],
        "positions": weights["input_position_embeddings"].shape[1],
        "wide_blocks": _blocks(weights, "wide_attention_blocks."),
        "narrow_blocks": _blocks(weights, "narrow_attention_blocks."),
        "heads": _HEADS,
    }
    return config, text_width, context


def _blocks(weights: Mapping[str, Tensor], start: str) -> int:
    return len({name.removeprefix(start).partition(".")[0] for name in weights if name.startswith(start)})
