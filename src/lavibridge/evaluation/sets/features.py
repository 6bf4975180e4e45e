"""Features of sets of images, their extractors, and the two forms of a reference set."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float
from PIL import Image

from lavibridge.core.errors import DataError
from lavibridge.core.log import progress_bar

SetFeatures = Float[np.ndarray, "picture width"]
"""One row per picture, float64."""


@dataclass(frozen=True, kw_only=True)
class FeatureMoments:
    """Mean and unbiased covariance of features, float64; enough for a Fréchet distance."""

    mean: Float[np.ndarray, " width"]
    covariance: Float[np.ndarray, "width width"]
    n: int | None = None
    """Number of pictures, if known."""

    @staticmethod
    def of(features: SetFeatures) -> "FeatureMoments":
        """Compute the moments of at least two rows."""
        mean = features.mean(axis=0)
        centred = features - mean
        return FeatureMoments(
            mean=mean, covariance=centred.T @ centred / (len(features) - 1), n=len(features)
        )


@dataclass(frozen=True, kw_only=True)
class ReferenceFeatures:
    """A reference set: its features, or only their moments."""

    features: SetFeatures | None = None
    moments: FeatureMoments | None = None
    card: Mapping[str, Any]
    """Its identity for the results: hash and number of pictures."""

    @property
    def width(self) -> int:
        """Width of its features."""
        kept = self.features if self.features is not None else self.all_moments().covariance
        return int(kept.shape[1])

    def all_moments(self) -> FeatureMoments:
        """The moments, computed from features if needed."""
        if self.moments is not None:
            return self.moments
        return FeatureMoments.of(self.all_features("moments"))

    def all_features(self, metric: str) -> SetFeatures:
        """The features. Raises DataError if the reference has only moments."""
        if self.features is None:
            raise DataError(
                f"{metric} needs the features of the reference, but the file has only mu and sigma: give the "
                "folder of its images"
            )
        return self.features


class FeatureExtractor(ABC):
    """Extracts features from pictures."""

    batch: ClassVar[int] = 32

    @abstractmethod
    def card(self) -> dict[str, Any]:
        """The network and its resize rule."""

    @abstractmethod
    def features(self, pictures: Sequence[Image.Image]) -> SetFeatures:
        """One row per picture of an RGB batch."""

    def free(self) -> None:  # noqa: B027 - some have none
        """Free the weights; the next use loads them again."""


def extract_features(
    extractor: FeatureExtractor, pictures: Iterator[Image.Image], count: int, what: str
) -> SetFeatures:
    """Extract the features of ``count`` pictures batch by batch; ``what`` names them in the progress bar."""
    rows: list[SetFeatures] = []
    batch: list[Image.Image] = []
    with progress_bar("pictures") as bar:
        task = bar.add_task(f"features, {what}", total=count, status="")
        for number, picture in enumerate(pictures, start=1):
            batch.append(picture)
            if len(batch) == extractor.batch or number == count:
                rows.append(extractor.features(batch))
                bar.update(task, advance=len(batch))
                batch = []
    return np.concatenate(rows)
