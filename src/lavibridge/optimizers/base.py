"""The contract of an optimiser: it turns parameter groups into a `torch.optim.Optimizer`."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from lavibridge.core.config import Config as BaseConfig


class OptimizerFactory(ABC):
    """Builds an optimiser for parameter groups in PyTorch's format."""

    class Config(BaseConfig):
        """The options of an optimiser, besides the learning rates and the weight decay of `training`."""

    state_bytes: ClassVar[float]
    """Bytes of optimiser state per trained weight, which `lavi plan` counts."""

    def __init__(self, config: "OptimizerFactory.Config") -> None:
        self.config = config

    @classmethod
    def check_installed(cls) -> None:
        """Raise RecipeError if the optimiser needs a package that is not installed."""
        return

    @abstractmethod
    def build(self, groups: Sequence[Mapping[str, Any]], weight_decay: float) -> torch.optim.Optimizer:
        """Build the optimiser of ``groups``, each with its ``params`` and ``lr``.

        A checkpoint stores every tensor and number of the optimiser's state by the name of its parameter.
        """
