"""Uniform weighting: the error of what the model predicts counts alike at every timestep.

Ho et al. 2020, arXiv 2006.11239 (the simple loss, for epsilon).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from lavibridge.diffusion.weighting.base import Weighting


class UniformWeighting(Weighting):
    """The weight is 1."""

    def weight(self, snr: Float[Tensor, " batch"], prediction_type: str) -> Float[Tensor, " batch"]:
        return torch.ones_like(snr)
