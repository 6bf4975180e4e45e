"""The contract of a timestep sampling: which timesteps of the schedule training draws, and how often.

    u in [0, 1), uniform, one for each visit of a sample     ->     position in [0, 1]     ->     timestep

Position 0 is nearly clean, 1 is pure noise. A sampling is the quantile function of its distribution, so that
a run draws the same timesteps wherever it continues.
"""

from abc import ABC, abstractmethod

from lavibridge.core.config import Config as BaseConfig


class TimestepSampling(ABC):
    """Turns uniform random numbers into timesteps."""

    class Config(BaseConfig):
        """The options of a timestep sampling."""

    def __init__(self, config: "TimestepSampling.Config") -> None:
        self.config = config

    @abstractmethod
    def position(self, u: float) -> float:
        """The position in the schedule, in [0, 1], below which a share ``u`` of the draws lies."""

    def timestep(self, u: float, steps: int) -> int:
        """The timestep, from 0 to ``steps`` - 1, for a uniform random number ``u`` in [0, 1)."""
        return min(int(self.position(u) * steps), steps - 1)  # a position may be rounded to 1
