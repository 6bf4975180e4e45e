"""Classifier-free guidance: away from the prediction without a prompt, towards the one with it.

    guided = unconditional + scale (conditional - unconditional)        scale 1: the prompt alone

Ho and Salimans 2022, arXiv 2207.12598.
"""

from jaxtyping import Float
from torch import Tensor


def guide(
    unconditional: Float[Tensor, "batch channel h w"],
    conditional: Float[Tensor, "batch channel h w"],
    scale: float,
) -> Float[Tensor, "batch channel h w"]:
    """The guided prediction."""
    return unconditional + scale * (conditional - unconditional)
