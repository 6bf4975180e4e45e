"""The memory format of a denoiser, decided here alone.

    inference, and training on a GPU    channels last, which is faster for convolutions
    training on a CPU                   contiguous: LoRA's small convolutions are slow in channels last there
    small maps in bfloat16 on a CPU     contiguous within group norms, 4 to 17 times faster (LOG.md)

The autoencoder stays contiguous: its large group norms lose digits in channels last.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

SMALL_MAP = 1024
"""Pixels of a map below which torch's group norm in channels last on a CPU is slow, group by group."""


def set_memory_format(denoiser: nn.Module, device: torch.device, is_trained: bool) -> None:
    """Lay out the weights for ``device``, and for training if LoRA inside it is trained."""
    plain = is_trained and device.type == "cpu"
    chosen = torch.contiguous_format if plain else torch.channels_last
    before = {name: weight.data_ptr() for name, weight in denoiser.named_parameters()}
    denoiser.to(memory_format=chosen)  # type: ignore[call-overload]
    _leave_file(denoiser, before)


def _leave_file(denoiser: nn.Module, before: Mapping[str, int]) -> None:
    """Copy the other weights, too, where most were copied to be laid out anew.

    Weights are read from a file that is mapped into memory. While one of them lies there, the whole file
    stays in memory beside the copies: 2 GiB of a U-Net's 3.2.
    """
    weights = dict(denoiser.named_parameters())
    left = [weight for name, weight in weights.items() if weight.data_ptr() == before[name]]
    if 2 * sum(weight.nbytes for weight in left) >= sum(weight.nbytes for weight in weights.values()):
        return
    for weight in left:
        weight.data = weight.data.clone()


def reorder_norms(denoiser: nn.Module) -> None:
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
    is_slow = x.device.type == "cpu" and x.dtype == torch.bfloat16 and x[0, 0].numel() < SMALL_MAP
    return (x.contiguous(),) if is_slow else None
