"""Checks that a bridge has its weights, and has them whole, before an operation that needs them."""

import torch
from torch import nn

from lavibridge.core.errors import ModelError


def require_weights(bridge: nn.Module, doing: str) -> None:
    """Raise ModelError for a bridge on the meta device; ``doing`` is the verb in the message."""
    if any(weight.is_meta for weight in bridge.parameters()):
        raise ModelError(
            f"cannot {doing} a bridge without weights: this one is on the meta device; load it on a real "
            "device"
        )


def require_whole_weights(bridge: nn.Module, doing: str) -> None:
    """Raise ModelError also for a bridge whose frozen weights are sharded over processes."""
    require_weights(bridge, doing)
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return
    from torch.distributed.tensor import DTensor

    if any(isinstance(weight.data, DTensor) for weight in bridge.parameters()):
        raise ModelError(
            f"cannot {doing} a bridge whose weights are sharded over processes (training.sharding): save it, "
            "and load it in one process"
        )
