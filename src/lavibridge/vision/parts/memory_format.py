"""Chooses the memory format of a denoiser's weights; no other file does.

    inference, and training on a GPU    channels last, which is faster for convolutions
    training on a CPU                   contiguous: LoRA's small convolutions are slow in channels last there
    small maps in bfloat16 on a CPU     contiguous within group norms, 4 to 17 times faster (LOG.md)

The autoencoder stays contiguous, because its large group norms lose digits in channels last.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lavibridge.core.mapped_files import MappedFiles

_SMALL_MAP = 1024
"""Below this number of pixels per map, torch's group norm in channels last is slow on a CPU."""


def set_memory_format(denoiser: nn.Module, device: torch.device, is_trained: bool) -> None:
    """Set the memory format for ``device``; ``is_trained`` means that the denoiser's LoRA is trained."""
    plain = is_trained and device.type == "cpu"
    chosen = torch.contiguous_format if plain else torch.channels_last
    files, left = MappedFiles(), []
    weights = [*denoiser.parameters(), *denoiser.buffers()]
    for weight in weights:
        laid_out = weight.data.to(memory_format=chosen) if weight.dim() == 4 else weight.data
        if laid_out.data_ptr() == weight.data_ptr():
            left.append(weight)
        else:
            _replace(weight, laid_out, files)
    # One weight in the file keeps the file mapped; where few are left in it, these are copied, too.
    if 2 * sum(weight.nbytes for weight in left) < sum(weight.nbytes for weight in weights):
        for weight in left:
            _replace(weight, weight.data.clone(), files)


def _replace(weight: Tensor, copy: Tensor, files: MappedFiles) -> None:
    """Put a copy of its values into a weight, and let go of the file's pages that held them."""
    before, weight.data = weight.data, copy
    files.release(before)


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
