"""Settings that change a denoiser's speed and memory, not its result."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from lavibridge.core.errors import ModelError

_KERNELS = {"eager": "_native_math", "flash": "flash"}
"""Their names in the dispatcher of diffusers."""
_TORCH_S = "AttnProcessor2_0"
"""The processor with torch's kernels; diffusers also has a plain one for the same attention."""


def repeated_blocks(denoiser: nn.Module, lists: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield the transformer blocks with their names, in the order of the modules.

    They are the elements of the module lists whose names end with ``lists``.
    """
    for name, module in denoiser.named_modules():
        if name.rpartition(".")[0].endswith(lists):
            yield name, module


def compile_repeated_blocks(denoiser: nn.Module, lists: str, backend: str) -> None:
    """Compile each repeated block on its first call; equal blocks share their code."""
    for _, block in repeated_blocks(denoiser, lists):
        block.compile(backend=backend)


def enable_gradient_checkpointing(denoiser: Any, source: str) -> None:
    """Recompute the blocks in the backward pass. Raises ModelError if the denoiser does not support it."""
    try:
        denoiser.enable_gradient_checkpointing()
    except ValueError as error:
        raise ModelError(
            f"the denoiser of '{source}' cannot recompute its blocks ({error}): omit training.checkpointing"
        ) from error


def choose_attention_kernel(denoiser: Any, kernel: str, plain: Callable[[], Any], source: str) -> None:
    """Set the attention kernel; ``plain`` creates the processor without torch's kernels.

    Raises ModelError if the denoiser cannot use the kernel here.
    """
    if kernel == "sdpa":
        return  # the default of every denoiser in diffusers
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
