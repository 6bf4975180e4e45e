"""Checks that a bridge has the weights that an operation needs, before it begins.

weights        values, and not shapes alone (the meta device)
own weights    neither offloaded nor stored in 8-bit floating point: they can be read and changed
whole weights  all of this, and not sharded over processes
full weights   not quantised: LoRA can be added to them, and they can be written
"""

from typing import Any

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


def require_own_weights(bridge: Any, doing: str) -> None:
    """Raise ModelError for a bridge whose denoiser is offloaded or stored in 8-bit floating point."""
    placement = bridge.vision.placement
    if placement.is_final:
        raise ModelError(
            f"cannot {doing} a bridge whose denoiser is {placement.form}: load it again without offload and "
            "storage_dtype"
        )


def require_whole_weights(bridge: nn.Module, doing: str) -> None:
    """Raise ModelError for any of these, and for a bridge whose frozen weights are sharded."""
    require_weights(bridge, doing)
    require_own_weights(bridge, doing)
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return
    from torch.distributed.tensor import DTensor

    if any(isinstance(weight.data, DTensor) for weight in bridge.parameters()):
        raise ModelError(
            f"cannot {doing} a bridge whose weights are sharded over processes (training.sharding): save it, "
            "and load it in one process"
        )


def require_full_weights(model: Any, doing: str) -> None:
    """Raise ModelError for a language or vision model whose frozen weights are quantised."""
    if model.placement.quantize is not None:
        raise ModelError(
            f"cannot {doing} '{model.config.source}', whose weights are {model.placement.form}: draw with "
            "LoRA beside them, or load the model without `quantize`"
        )
