"""Logit-normal timesteps: those in the middle of the schedule are drawn more often.

    position = sigmoid(mean + std z)        z: the standard normal's quantile of u

For a flow whose schedule is not shifted the position is the share of noise, and this is the density that
Stable Diffusion 3 was trained with. For other models it applies to the position in their own schedule, for
which no results are published.

Esser et al. 2024, arXiv 2403.03206, eq. 19.
"""

import torch
from pydantic import Field

from lavibridge.diffusion.timestep_sampling.base import TimestepSampling


class LogitNormal(TimestepSampling):
    """The logit of the position is normally distributed."""

    class Config(TimestepSampling.Config):
        """The options of logit-normal timesteps."""

        mean: float = 0.0
        """Mean of the logit; above 0, noisier timesteps are drawn more often."""
        std: float = Field(default=1.0, gt=0)
        """Standard deviation of the logit."""

    config: Config

    def position(self, u: float) -> float:
        normal = torch.special.ndtri(torch.tensor(u, dtype=torch.float64))
        return float(torch.sigmoid(self.config.mean + self.config.std * normal))
