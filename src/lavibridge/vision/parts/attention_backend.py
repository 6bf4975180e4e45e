"""Ways of computing a denoiser of the diffusers library that change its speed and memory only."""

from collections.abc import Callable
from typing import Any

from torch import nn

from lavibridge.core.errors import ModelError

_REPEATED = "transformer_blocks"
"""Ends of the names of the lists whose elements are compiled. (The library says so of some classes only.)"""
_KERNELS = {"eager": "_native_math", "flash": "flash"}
"""What the library's dispatcher calls them."""
_TORCH_S = "AttnProcessor2_0"
"""The library's attention by torch's own kernels, for which it has a plain one as well."""


def compile_repeated_blocks(denoiser: nn.Module, backend: str) -> None:
    """Compile the blocks, each when it is first called; equal ones share their code."""
    for name, module in denoiser.named_modules():
        if name.rpartition(".")[0].endswith(_REPEATED):
            module.compile(backend=backend)


def enable_gradient_checkpointing(denoiser: Any, source: str) -> None:
    """Have the blocks recomputed in the backward pass."""
    try:
        denoiser.enable_gradient_checkpointing()
    except ValueError as error:
        raise ModelError(
            f"the denoiser of '{source}' cannot recompute its blocks ({error}): "
            "leave training.checkpointing out"
        ) from error


def choose_attention_kernel(denoiser: Any, kernel: str, plain: Callable[[], Any], source: str) -> None:
    """Set the kernel of attention; ``plain`` makes the library's attention without torch's kernels."""
    if kernel == "sdpa":
        return  # every denoiser of the library begins with it
    processors = denoiser.attn_processors.values()
    names = sorted({type(processor).__name__ for processor in processors})
    if all(hasattr(processor, "_attention_backend") for processor in processors):
        try:
            denoiser.set_attention_backend(_KERNELS[kernel])
        except (ValueError, ImportError, RuntimeError) as error:
            raise ModelError(
                f"training.attention is {kernel}, which '{source}' cannot use here: {error}"
            ) from error
    elif kernel == "eager" and names == [_TORCH_S]:
        denoiser.set_attn_processor(plain())
    else:
        raise ModelError(
            f"training.attention is {kernel}, but the attention of '{source}' ({', '.join(names)}) is "
            "computed by torch, which takes its own flash kernels where it can: use auto or sdpa"
        )
