"""Lets a per-block connector replace the cross-attention of ComfyUI's U-Nets, or the tokens that it reads.

    comfy/ldm/modules/attention.py, BasicTransformerBlock:
        attn2_patch(n, context, value, extra)                     sees the layer's input n, changes its tokens
        patches_replace["attn2"][place](q, k, v, extra)           computes the attention, before to_out
    place = (block, number, index in the block), such as ("input", 4, 0)

The functions belong to one call of the denoiser, so each call gets options of its own.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional

from lavibridge.core.contracts import Attention, BlockTokens
from lavibridge.core.errors import ModelError

Place = tuple[str, int, int]
_LAYER = re.compile(r"(down|mid|up)_blocks?\.(?:(\d+)\.)?attentions\.(\d+)\.transformer_blocks\.(\d+)\.attn2")


def block_places(layers: tuple[str, ...]) -> dict[str, Place]:
    """Return the place of each cross-attention layer of a U-Net in ComfyUI, by its name in Diffusers.

    Raises ModelError for other denoisers, whose blocks ComfyUI does not let anybody replace.
    """
    found = {name: _LAYER.fullmatch(name) for name in layers}
    other = [name for name, match in found.items() if match is None]
    down = [int(match[3]) for match in found.values() if match is not None and match[1] == "down"]
    if other or not down:
        raise ModelError(
            "Apply bridge: this connector adds attention to the denoiser's blocks, which ComfyUI supports "
            f"for U-Nets only, and this denoiser has layers such as {(other or ['none'])[0]}"
        )
    layers_per_block = max(down) + 1
    return {name: _place(match, layers_per_block) for name, match in found.items() if match is not None}


def _place(match: re.Match[str], layers_per_block: int) -> Place:
    level, attention, index = int(match[2] or 0), int(match[3]), int(match[4])
    block = level * (layers_per_block + 1) + attention
    if match[1] == "mid":
        return "middle", 0, index
    return ("input", block + 1, index) if match[1] == "down" else ("output", block, index)


def with_block_attention(
    options: Mapping[str, Any], blocks: Mapping[str, Attention | BlockTokens], places: Mapping[str, Place]
) -> dict[str, Any]:
    """Return transformer options in which ``blocks`` replace attention or tokens; other patches remain."""
    tokens = {places[name]: each.tokens for name, each in blocks.items() if isinstance(each, BlockTokens)}
    functions = {places[name]: each for name, each in blocks.items() if not isinstance(each, BlockTokens)}
    inputs: dict[Place, Tensor] = {}
    patches, replaced = dict(options.get("patches", {})), dict(options.get("patches_replace", {}))
    earlier = replaced.get("attn2", {})

    def patch(n: Tensor, context: Tensor, value: Tensor, extra: Mapping[str, Any]) -> tuple[Tensor, ...]:
        place = _place_of(extra)
        if place in tokens:
            own = tokens[place].to(context)
            return n, own, own
        inputs[place] = n
        return n, context, value

    def replacement(attend: Attention, before: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def replace(q: Tensor, k: Tensor, v: Tensor, extra: Mapping[str, Any]) -> Tensor:
            answer = before(q, k, v, extra)
            return attend(inputs.pop(_place_of(extra)), answer).to(answer)

        return replace

    own = {
        place: replacement(attend, earlier.get(place) or earlier.get(place[:2]) or _attention)
        for place, attend in functions.items()
    }
    patches["attn2_patch"] = [*patches.get("attn2_patch", []), patch]
    replaced["attn2"] = {**earlier, **own}
    return {**options, "patches": patches, "patches_replace": replaced}


def _place_of(extra: Mapping[str, Any]) -> Place:
    block, number = extra["block"]
    return block, number, extra["block_index"]


def _attention(q: Tensor, k: Tensor, v: Tensor, extra: Mapping[str, Any]) -> Tensor:
    """The layer's own attention, of queries, keys and values (row, token, heads * width)."""
    parts = (part.unflatten(-1, (extra["n_heads"], -1)).transpose(1, 2) for part in (q, k, v))
    return functional.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)
