"""First-block cache: a step whose first block changes little reuses the other blocks' outputs.

    r = first(x) - x, the step before: x', r'
    |r - r'| <= threshold |r'|:   y = first(x) + last(x') - first(x')
    else:                         y = last(x)

It uses the hooks of Diffusers, which support some block classes. A batch decides as a whole.

ParaAttention (Cheng 2024, github.com/chengzeyi/ParaAttention), after TeaCache (Liu et al. 2024,
arXiv 2411.19108).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import diffusers
from diffusers.hooks import FirstBlockCacheConfig, HookRegistry, apply_first_block_cache
from torch import Tensor, nn

from lavibridge.core.errors import ModelError

_HOOKS = ("fbc_leader_block_hook", "fbc_block_hook")
"""Their names in diffusers."""
_KNOWN = ("PixArtTransformer2DModel", "FluxTransformer2DModel")
"""The denoisers that the hooks support. (The last block of Stable Diffusion 3 returns no text.)"""


@contextmanager
def use_step_cache(denoiser: nn.Module, threshold: float, source: str) -> Iterator[None]:
    """Let calls of ``denoiser`` reuse block outputs of earlier calls with inputs of the same shapes.

    Raises ModelError, naming ``source``, if the hooks do not support the denoiser.
    """
    if type(denoiser).__name__ not in _KNOWN:
        raise ModelError(
            f"step_cache supports PixArt and FLUX, found a {type(denoiser).__name__} ('{source}'): omit it; "
            "fewer steps or quality 'fast' also save time"
        )
    apply_first_block_cache(denoiser, FirstBlockCacheConfig(threshold))
    call = ExitStack()

    def begin(module: nn.Module, inputs: Sequence[Any], named: Mapping[str, Any]) -> None:
        # Guidance and prompts of another length make calls of their own, which differ in their shapes.
        tensors = [each for each in (*inputs, *named.values()) if isinstance(each, Tensor)]
        name = " ".join(str(tuple(each.shape)) for each in tensors)
        call.enter_context(diffusers.CacheMixin.cache_context(denoiser, name))

    begins = denoiser.register_forward_pre_hook(begin, with_kwargs=True)
    ends = denoiser.register_forward_hook(lambda *_: call.close(), always_call=True)
    try:
        yield
    finally:
        begins.remove()
        ends.remove()
        for name in _HOOKS:
            HookRegistry.check_if_exists_or_initialize(denoiser).remove_hook(name, recurse=True)
