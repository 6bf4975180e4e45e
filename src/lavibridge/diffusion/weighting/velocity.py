"""Velocity weighting: the loss is the error of the velocity v, whatever the model predicts.

    v = alpha eps - sigma x0        weight of the error of x0 = snr + 1, at most 20 snr

More than the uniform weighting of epsilon, it emphasises the noisiest timesteps, which decide what is in the
image. The limit keeps the weight of an error of epsilon at 20 or less, reached where 5 % of the signal are
left.

Salimans and Ho 2022, arXiv 2202.00512 (the "SNR + 1" weighting).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from lavibridge.diffusion.objective import weight_from_x0
from lavibridge.diffusion.weighting.base import Weighting

_LARGEST_WEIGHT = 20.0
"""Of an error of epsilon."""


class Velocity(Weighting):
    """The mean squared error of v."""

    def weight(self, snr: Float[Tensor, " batch"], prediction_type: str) -> Float[Tensor, " batch"]:
        return weight_from_x0(torch.minimum(snr + 1, _LARGEST_WEIGHT * snr), snr, prediction_type)
