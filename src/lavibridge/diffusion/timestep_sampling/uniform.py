"""Uniform timesteps: each one of the schedule is drawn equally often.

Ho et al. 2020, arXiv 2006.11239.
"""

from lavibridge.diffusion.timestep_sampling.base import TimestepSampling


class UniformTimesteps(TimestepSampling):
    """The position is the random number itself."""

    def position(self, u: float) -> float:
        return u
