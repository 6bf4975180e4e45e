"""The contract of a connector: text features in, conditioning out."""

from abc import ABC, abstractmethod
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor, nn

from lavibridge.core.config import Config as BaseConfig
from lavibridge.core.contracts import Conditioning, TextFeatures, TextSpec, VisionSpec


class Connector(nn.Module, ABC):
    """What is trained between the two models; its sizes come from their specs, never by hand."""

    class Config(BaseConfig):
        """The options of a connector."""

    time_aware: ClassVar[bool] = False
    """Whether the conditioning depends on the timestep, so that it is made anew at each step."""
    per_block: ClassVar[bool] = False
    """Whether it speaks to single blocks of the denoiser."""

    config: "Connector.Config"
    layers: tuple[int, ...] = (-1,)
    """The language model's layers that it reads."""

    @abstractmethod
    def __init__(self, config: "Connector.Config", text: TextSpec, vision: VisionSpec) -> None:
        """Build from the options and the two specs; raises ModelError where they cannot be connected."""
        super().__init__()

    @property
    def wants_calibration(self) -> bool:
        """Whether `calibrate` is to be called, on features of the data's captions, before the first step."""
        return False

    def calibrate(self, tokens: Float[Tensor, "token layer width"]) -> None:
        """Fit the first weights to real tokens' features."""
        raise RuntimeError(f"{type(self).__name__} does not calibrate")

    @abstractmethod
    def forward(self, features: TextFeatures, t: Int[Tensor, " batch"] | None = None) -> Conditioning:
        """The conditioning of features; ``t`` are training timesteps, given to time-aware connectors."""
