"""Lists the linear and convolution layers of a network, and folds low-rank updates into their weights.

    linear        W + up down
    convolution   W + up down, the kernels of down flattened

A folded update becomes part of the frozen network. The model records it (`FoldedLora`), because its folder
does not contain it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from lavibridge.core.errors import ModelError

Layer: TypeAlias = nn.Linear | nn.Conv2d
LowRankPairs: TypeAlias = Mapping[str, tuple[Tensor, Tensor]]
"""(up, down) by layer name; up includes any scale."""


@dataclass(frozen=True, kw_only=True)
class FoldedLora:
    """A LoRA file that was folded into a network."""

    name: str
    """The file's name."""
    sha256: str
    """The file's hash, which identifies it later."""
    pairs: LowRankPairs


def plain_layer_name(name: str) -> str | None:
    """Return a layer's (or weight's) name without LoRA wrappers, or None for LoRA's own weights."""
    parts = name.split(".")
    if "lora_A" in parts or "lora_B" in parts:
        return None
    return ".".join(part for part in parts if part != "base_layer")


def named_layers(network: nn.Module) -> dict[str, Layer]:
    """Return all linear and convolution layers by name, with or without LoRA."""
    found: dict[str, Layer] = {}
    for name, module in network.named_modules():
        plain = plain_layer_name(name)
        if plain is not None and isinstance(module, Layer):
            found[plain] = module
    return found


def low_rank_shapes(layer: Layer, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of up and down for a layer: a convolution's down has its kernel, up is 1 x 1."""
    if isinstance(layer, nn.Linear):
        return (layer.out_features, rank), (rank, layer.in_features)
    kernel = tuple(layer.kernel_size)
    return (layer.out_channels, rank, 1, 1), (rank, layer.in_channels // layer.groups, *kernel)


def add_low_rank(weight: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """Add up down to the weight in float32 and return the result in the weight's own format."""
    change = (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
    return (weight.float() + change.to(weight.device)).to(weight.dtype)


@torch.no_grad()
def fold_low_rank(network: nn.Module, pairs: LowRankPairs) -> None:
    """Add (up, down) to the layers' weights: all, or none with a ModelError."""
    own = named_layers(network)
    wrong = [name for name in pairs if name not in own or not own[name].weight.is_floating_point()]
    if wrong:
        raise ModelError(
            f"{len(wrong)} layers, such as {wrong[0]}, are missing or quantised, so the LoRA file cannot be "
            "added: load the model that it was made for, without `quantize`"
        )
    for name, (up, down) in pairs.items():
        weight = own[name].weight
        weight.copy_(add_low_rank(weight, up, down))
