"""Group offloading: a denoiser's blocks are in files, and each is in memory only while it runs.

    block 1: read, run, let go | block 2: read, run, let go | ...

It uses the hooks of Diffusers. Memory holds one block instead of all; every step reads every block anew, from
the file cache of the operating system while that has room. Predictions stay the same, bit for bit.
"""

from typing import Any

import torch

from lavibridge.core.errors import ModelError


def offload_denoiser(denoiser: Any, device: torch.device, folder: str, source: str) -> None:
    """Write the denoiser's weights into files of an empty ``folder``, and read them to run on ``device``.

    Raises ModelError, naming ``source``, if the denoiser does not support it.
    """
    # The files hold contiguous tensors only.
    denoiser.to(memory_format=torch.contiguous_format)
    try:
        denoiser.enable_group_offload(
            onload_device=device,
            offload_type="block_level",
            num_blocks_per_group=1,
            offload_to_disk_path=folder,
        )
    except ValueError as error:
        raise ModelError(f"'{source}' cannot be offloaded: {error}; leave offload out") from error
