"""Puts a denoiser's final weights into files, or stores them in 8-bit floating point, by hooks of Diffusers.

    group offloading     block 1: read, run, let go | block 2: read, run, let go | ...
    layerwise casting    layer 1: cast, run, cast back | layer 2: cast, run, cast back | ...

Offloading holds one block in memory instead of all; every step reads every block anew, from the file cache of
the operating system while that has room. Predictions stay the same, bit for bit. Casting halves a bfloat16
denoiser and rounds its weights to two or three binary digits; norms and embeddings of positions stay as they
are.
"""

from dataclasses import replace
from typing import Any

import torch

from lavibridge.core.errors import ModelError
from lavibridge.core.placement import Placement


def finalize_denoiser(denoiser: Any, own: Placement, placement: Placement, source: str) -> Placement:
    """Put the denoiser's weights where ``placement`` says, and return where they now lie.

    ``own`` is where they lie so far. Raises ModelError, naming ``source``, if the denoiser does not support
    it.
    """
    if own.is_final:
        raise ModelError(f"the denoiser of '{source}' is {own.form} already: load it anew")
    if placement.storage_dtype is not None:
        _cast(denoiser, own, placement.storage_dtype, source)
    if placement.offload is not None:
        _offload(denoiser, placement, source)
    return replace(
        own, device=placement.device, storage_dtype=placement.storage_dtype, offload=placement.offload
    )


def _cast(denoiser: Any, own: Placement, storage_dtype: torch.dtype, source: str) -> None:
    if own.quantize is not None:
        raise ModelError(
            f"'{source}' is {own.form}, which storage_dtype cannot store again: leave one of the two out"
        )
    denoiser.enable_layerwise_casting(storage_dtype=storage_dtype, compute_dtype=own.dtype)


def _offload(denoiser: Any, placement: Placement, source: str) -> None:
    # The files hold contiguous tensors only.
    denoiser.to(memory_format=torch.contiguous_format)
    try:
        denoiser.enable_group_offload(
            onload_device=placement.device,
            offload_type="block_level",
            num_blocks_per_group=1,
            offload_to_disk_path=str(placement.offload),
        )
    except ValueError as error:
        raise ModelError(f"'{source}' cannot be offloaded: {error}; leave offload out") from error
