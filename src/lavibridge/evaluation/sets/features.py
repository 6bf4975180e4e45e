"""Features of sets of pictures: what makes them, and the two forms in which a reference set is kept."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from PIL import Image

from lavibridge.core.errors import DataError

Features = Float[np.ndarray, "picture width"]
"""A row per picture, float64."""


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Mean and unbiased covariance of features, float64; all that a Frechet distance needs of a set."""

    mean: Float[np.ndarray, " width"]
    covariance: Float[np.ndarray, "width width"]
    n: int | None = None
    """Pictures that it was made of, where that is known."""

    @staticmethod
    def of(features: Features) -> "Moments":
        """The moments of at least two rows."""
        mean = features.mean(axis=0)
        centred = features - mean
        return Moments(mean=mean, covariance=centred.T @ centred / (len(features) - 1), n=len(features))


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A reference set, by its features or by their moments alone."""

    features: Features | None = None
    moments: Moments | None = None
    card: Mapping[str, Any]
    """What it is, for the results: its hash and number of pictures."""

    @property
    def width(self) -> int:
        """Width of its features."""
        kept = self.features if self.features is not None else self.all_moments().covariance
        return int(kept.shape[1])

    def all_moments(self) -> Moments:
        """Its moments."""
        if self.moments is not None:
            return self.moments
        return Moments.of(self.all_features("moments"))

    def all_features(self, metric: str) -> Features:
        """Its features; DataError where only moments were kept."""
        if self.features is None:
            raise DataError(
                f"{metric} needs the features of the reference, and the file holds only mu and sigma: give "
                "the folder of its pictures"
            )
        return self.features


class Extractor(ABC):
    """Makes features of pictures."""

    batch: ClassVar[int] = 32

    @abstractmethod
    def card(self) -> dict[str, Any]:
        """Which network it is, and its resize rule."""

    @abstractmethod
    def features(self, pictures: Sequence[Image.Image]) -> Features:
        """A row for each picture of a batch, RGB."""

    def free(self) -> None:  # noqa: B027 - some have none
        """Let go of the weights; they are loaded again when they are needed again."""
