"""Lists the linear and convolution layers of a network, and adds low-rank updates to their weights.

linear        W + up down
convolution   W + up down, the kernels of down flattened
"""

from collections.abc import Mapping
from typing import TypeAlias

from torch import Tensor, nn

Layer: TypeAlias = nn.Linear | nn.Conv2d
LowRankPairs: TypeAlias = Mapping[str, tuple[Tensor, Tensor]]
"""(up, down) by layer name; up includes any scale."""


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
