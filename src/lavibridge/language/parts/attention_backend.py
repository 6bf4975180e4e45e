"""Gradient checkpointing and attention kernels of Transformers models: they change speed and memory only.

The library's switches ignore a choice that a model does not support; here it is an error.
"""

from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from lavibridge.core.errors import ModelError

KERNELS = {"sdpa": "sdpa", "eager": "eager", "flash": "flash_attention_2"}
"""Name of a kernel in a recipe -> its name in the library."""
BLOCK = "GradientCheckpointingLayer"
"""The library's class for repeated blocks."""


def transformer_blocks(backbone: nn.Module, count: int) -> list[nn.Module]:
    """The ``count`` repeated blocks in the order of computation, or an empty list if they are not found."""
    lists = [list(module) for module in backbone.modules() if isinstance(module, nn.ModuleList)]
    candidates = [_library_blocks(backbone), *lists]
    return next((found for found in candidates if len(found) == count), [])


def require_transformer_blocks(backbone: nn.Module, source: str) -> list[nn.Module]:
    """The repeated blocks. Raises ModelError if there are none."""
    found = _library_blocks(backbone)
    if not found:
        raise ModelError(
            f"the language model '{source}' is a {type(backbone).__name__}, whose blocks can be neither "
            "recomputed nor compiled: leave training.checkpointing and training.compile out"
        )
    return found


def checkpoint_transformer_blocks(backbone: Any, source: str) -> list[nn.Module]:
    """Make the blocks recompute in the backward pass, and return them.

    Sets the attributes that the library's own switch sets, as that switch has another name in each version.
    The library recomputes only in training mode, and our blocks are in evaluation mode: the caller sets the
    flag ``training`` of the blocks alone, so that dropout in their children stays off.
    """
    found: list[Any] = require_transformer_blocks(backbone, source)
    for block in found:
        block._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
        block.gradient_checkpointing = True
    return found


def set_language_attention_backend(backbone: Any, kernel: str, source: str) -> None:
    """Set the kernel of attention. Raises ModelError if the model or this machine does not support it."""
    try:
        backbone.set_attn_implementation(KERNELS[kernel])
    except (ValueError, ImportError, RuntimeError) as error:
        raise ModelError(
            f"training.attention is {kernel}, which the language model '{source}' cannot use here: {error}"
        ) from error
    if backbone.config._attn_implementation != KERNELS[kernel]:
        raise ModelError(
            f"training.attention is {kernel}, but the language model '{source}' knows only one way: use auto"
        )


def _library_blocks(backbone: nn.Module) -> list[nn.Module]:
    return [
        module
        for module in backbone.modules()
        if any(ancestor.__name__ == BLOCK for ancestor in type(module).__mro__)
    ]
