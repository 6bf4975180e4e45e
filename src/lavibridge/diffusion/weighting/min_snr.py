"""Min-SNR weighting: the error of x0 counts as its signal-to-noise ratio, up to a limit.

    weight of the error of x0 = min(snr, gamma)

Hang et al. 2023, arXiv 2303.09556.
"""

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from lavibridge.diffusion.objective import weight_from_x0
from lavibridge.diffusion.weighting.base import Weighting


class MinSnr(Weighting):
    """Keeps nearly clean timesteps from dominating the loss of x0."""

    class Config(Weighting.Config):
        """The options of min-SNR weighting."""

        gamma: float = Field(default=5.0, gt=0)
        """Largest weight of the error of x0."""

    config: Config

    def weight(self, snr: Float[Tensor, " batch"], prediction_type: str) -> Float[Tensor, " batch"]:
        return weight_from_x0(snr.clamp(max=self.config.gamma), snr, prediction_type)
