"""Ways of computing a language model of the transformers library that change its speed and memory only.

The library's own switches are used; what they leave unsaid, such as a choice that had no effect, is an error.
"""

from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from lavibridge.core.errors import ModelError

KERNELS = {"sdpa": "sdpa", "eager": "eager", "flash": "flash_attention_2"}
"""What the library calls them."""
BLOCK = "GradientCheckpointingLayer"
"""The library's class of what is repeated."""


def blocks(backbone: nn.Module, count: int) -> list[nn.Module]:
    """What is repeated, from the first computed on; none where no ``count`` blocks are to be found."""
    lists = [list(module) for module in backbone.modules() if isinstance(module, nn.ModuleList)]
    candidates = [_library_blocks(backbone), *lists]
    return next((found for found in candidates if len(found) == count), [])


def repeated(backbone: nn.Module, source: str) -> list[nn.Module]:
    """The blocks, which are all alike; ModelError where there are none."""
    found = _library_blocks(backbone)
    if not found:
        raise ModelError(
            f"the language model '{source}' is a {type(backbone).__name__}, whose blocks can be neither "
            "recomputed nor compiled: leave training.checkpointing and training.compile out"
        )
    return found


def recomputing(backbone: Any, source: str) -> list[nn.Module]:
    """Have the blocks recomputed in the backward pass, and return them.

    What is set is what the library's own switch sets, whose name is another one in each of its versions. It
    recomputes only while a block is in training mode, which ours never are: whoever calls the model has to
    set the blocks' own flag (their children, and with them dropout, keep theirs).
    """
    found: list[Any] = repeated(backbone, source)
    for block in found:
        block._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
        block.gradient_checkpointing = True
    return found


def choose_kernel(backbone: Any, kernel: str, source: str) -> None:
    """Set the kernel of attention; ModelError where the model or this machine has none of that name."""
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
