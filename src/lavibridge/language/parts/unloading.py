"""Frees the memory of a frozen network's weights, and fills them in again.

    free    a weight becomes one NaN that repeats in the weight's shape; number format and device stay
    fill    it takes the values of a newly loaded network

Parameters stay the same objects, because wrappers such as DistributedDataParallel keep references to them.
Quantised layers are the exception: each takes over the new layer's weight with its scales.
"""

from threading import RLock

import torch
from torch import nn

from lavibridge.core.mapped_files import trim_heap

LOADING = RLock()
"""Held while weights are filled in, so that no other thread reads half of them."""


def free_weights(network: nn.Module) -> int:
    """Free the memory of all weights, and return its size in bytes; buffers stay."""
    freed = sum(weight.nbytes for weight in network.parameters())
    for layer in network.modules():
        if _is_quantized(layer):
            _drop_scales(layer)
    for weight in network.parameters():
        one = torch.full((), float("nan") if weight.is_floating_point() else 0, dtype=weight.dtype)
        weight.data = one.to(weight.device).expand(weight.shape)
    trim_heap()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return freed


def fill_weights(network: nn.Module, loaded: nn.Module) -> None:
    """Give a network the weights of a newly loaded one, on the network's device."""
    device = next(network.parameters()).device
    layers = dict(loaded.to(device).named_modules())
    for path, layer in network.named_modules():
        new = layers[path]
        if _is_quantized(layer):
            for name in ("weight", "state", "quant_state"):
                if hasattr(new, name):
                    setattr(layer, name, getattr(new, name))
        for name, weight in layer.named_parameters(recurse=False):
            weight.data = new.get_parameter(name).data


def _is_quantized(layer: nn.Module) -> bool:
    """Whether a layer is one of bitsandbytes."""
    return type(layer).__module__.startswith("bitsandbytes.")


def _drop_scales(layer: nn.Module) -> None:
    """Drop what a quantised layer keeps beside its weight: scales, and another reference to the weight."""
    for holder in (layer, getattr(layer, "weight", None), getattr(layer, "state", None)):
        for name in ("quant_state", "CB", "SCB"):
            if getattr(holder, name, None) is not None:
                setattr(holder, name, None)
