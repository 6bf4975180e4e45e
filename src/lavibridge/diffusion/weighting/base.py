"""The contract of a loss weighting: how much the squared error counts at each noise level."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor

from lavibridge.core.config import Config as BaseConfig


class Weighting(ABC):
    """Weights the loss of each sample by its signal-to-noise ratio."""

    class Config(BaseConfig):
        """The options of a weighting."""

    def __init__(self, config: "Weighting.Config") -> None:
        self.config = config

    @abstractmethod
    def weight(self, snr: Float[Tensor, " batch"], prediction_type: str) -> Float[Tensor, " batch"]:
        """The factor of each sample's mean squared error.

        ``snr`` is alpha^2 / sigma^2, above 0. ``prediction_type`` is ``epsilon``, ``v_prediction``,
        ``sample`` or ``flow``; `objective.weight_from_x0` converts a weight of the error of x0 to each.
        """
