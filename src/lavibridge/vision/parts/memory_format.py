"""The memory format of a denoiser, decided here alone.

    inference, and training on a GPU    channels last, which is faster for convolutions
    training on a CPU                   contiguous: LoRA's small convolutions are slow in channels last there
    small maps in bfloat16 on a CPU     contiguous within group norms, 4 to 17 times faster (LOG.md)

The autoencoder stays contiguous: its large group norms lose digits in channels last.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

_SMALL_MAP = 1024
"""Pixels of a map below which torch's group norm in channels last on a CPU is slow, group by group."""


def set_memory_format(denoiser: nn.Module, device: torch.device, is_trained: bool) -> None:
    """Lay out the weights for ``device``, and for training if LoRA inside it is trained."""
    plain = is_trained and device.type == "cpu"
    chosen = torch.contiguous_format if plain else torch.channels_last
    denoiser.to(memory_format=chosen)  # type: ignore[call-overload]


def use_contiguous_norms(denoiser: nn.Module) -> None:
    """Make group norms of small bfloat16 maps on a CPU work on contiguous input.

    In float32 the backward pass costs what the norm gains (docs/performance.md).
    """
    for module in denoiser.modules():
        if isinstance(module, nn.GroupNorm):
            module.register_forward_pre_hook(_contiguous_input)


def _contiguous_input(
    norm: nn.Module, inputs: tuple[Float[Tensor, "batch channel *place"]]
) -> tuple[Float[Tensor, "batch channel *place"]] | None:
    (x,) = inputs
    is_slow = x.device.type == "cpu" and x.dtype == torch.bfloat16 and x[0, 0].numel() < _SMALL_MAP
    return (x.contiguous(),) if is_slow else None
