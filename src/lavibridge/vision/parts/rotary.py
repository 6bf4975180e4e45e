"""Rotary positions of image patches, scaled to the size of the training images."""

import torch
from diffusers.models.embeddings import get_2d_rotary_pos_embed
from jaxtyping import Float
from torch import Tensor


def patch_rotary(
    width: int, size: tuple[int, int], base: int, device: torch.device
) -> tuple[Float[Tensor, "patch width"], Float[Tensor, "patch width"]]:
    """Return cosines and sines for heads of ``width``, for patches of ``size`` rows and columns.

    The longer side spans ``base`` positions, whatever its number of patches; the other side is centred.
    """
    sides = [round(base * side / max(size)) for side in size]
    starts = [round((base - side) / 2) for side in sides]
    ends = [start + side for start, side in zip(starts, sides, strict=True)]
    return get_2d_rotary_pos_embed(width, (starts, ends), size, device=device, output_type="pt")
