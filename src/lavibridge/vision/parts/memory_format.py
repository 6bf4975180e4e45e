"""Chooses the memory format of a denoiser's weights; no other file does.

    inference, and training on a GPU    channels last, which is faster for convolutions
    training on a CPU                   contiguous: LoRA's small convolutions are slow in channels last there
    small maps in bfloat16 on a CPU     contiguous within group norms, 4 to 17 times faster (LOG.md)

The autoencoder stays contiguous, because its large group norms lose digits in channels last.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

_SMALL_MAP = 1024
"""Below this number of pixels per map, torch's group norm in channels last is slow on a CPU."""


def set_memory_format(denoiser: nn.Module, device: torch.device, is_trained: bool) -> None:
    """Set the memory format for ``device``; ``is_trained`` means that the denoiser's LoRA is trained."""
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


def use_contiguous_norms(denoiser: nn.Module) -> None:
    """Give group norms contiguous input for small bfloat16 maps on a CPU.

    In float32 the backward pass would cost as much as the norm gains (docs/performance.md).
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
