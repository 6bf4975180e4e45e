"""Refuses operations on bridges that lack their weights, or hold them in shards."""

import torch
from torch import nn

from lavibridge.core.errors import ModelError


def require_weights(bridge: nn.Module, doing: str) -> None:
    """Raise ModelError for a bridge that is an outline on the meta device; ``doing`` is a verb."""
    if any(weight.is_meta for weight in bridge.parameters()):
        raise ModelError(f"to {doing} a bridge its weights are needed, and this is an outline without any")


def require_whole_weights(bridge: nn.Module, doing: str) -> None:
    """The same, and for a bridge whose frozen weights are shared out over processes."""
    require_weights(bridge, doing)
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return
    from torch.distributed.tensor import DTensor

    if any(isinstance(weight.data, DTensor) for weight in bridge.parameters()):
        raise ModelError(
            f"to {doing} a bridge its weights have to be whole, and these are shared out over processes "
            "(training.sharding): save it, and load it in one process"
        )
