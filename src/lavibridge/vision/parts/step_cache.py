"""First-block cache: a step in which the first block does little new takes over what all others did before.

    r = first(x) - x, the step before: x', r'
    |r - r'| <= threshold |r'|:   y = first(x) + last(x') - first(x')
    else:                         y = last(x)

By Diffusers' hooks, which know some classes of blocks. Pictures of one batch decide together.

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
"""What the library calls them."""


_KNOWN = ("PixArtTransformer2DModel", "FluxTransformer2DModel")
"""Denoisers of the families here that they work with. (Stable Diffusion 3's last block gives no text.)"""


@contextmanager
def use_step_cache(denoiser: nn.Module, threshold: float, source: str) -> Iterator[None]:
    """Calls of ``denoiser`` in here reuse what those of the same shapes before them did.

    ModelError where it is none that can; ``source`` is named in it.
    """
    if type(denoiser).__name__ not in _KNOWN:
        raise ModelError(
            f"step_cache is for PixArt and FLUX, found a {type(denoiser).__name__} ('{source}'): leave it "
            "out; fewer steps, or quality fast, make a picture cheaper too"
        )
    apply_first_block_cache(denoiser, FirstBlockCacheConfig(threshold))
    call = ExitStack()

    def begin(module: nn.Module, inputs: Sequence[Any], named: Mapping[str, Any]) -> None:
        # Halves of guidance and prompts of one length are calls of their own, and differ in their shapes.
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
