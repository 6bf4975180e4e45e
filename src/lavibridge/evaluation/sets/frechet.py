"""The Fréchet distance between two normal distributions, the basis of FID and FD-DINOv2.

    FD = |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2))
    tr((S1 S2)^(1/2)) = sum of the square roots of the eigenvalues of R S2 R,   R = S1^(1/2)

R S2 R is symmetric, so no complex numbers appear, and singular covariances (fewer pictures than features)
need no regularisation. Covariances are unbiased (n - 1) and float64.

Heusel et al. 2017 (arXiv 1706.08500); Stein et al. 2023 (arXiv 2306.04675). The distance of finite sets is
biased upwards, by about width^2 / 4n for two sets of one distribution: compare equal n only.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lavibridge.evaluation.sets.features import FeatureMoments, SetFeatures


@dataclass(frozen=True, kw_only=True)
class Frechet:
    """The distance to a fixed set, with its matrix square root computed once."""

    mean: Float[np.ndarray, " width"]
    root: Float[np.ndarray, "width width"]
    trace: float

    def distance(self, features: SetFeatures) -> float:
        """The distance of a set of features."""
        return self.of_moments(FeatureMoments.of(features))

    def of_moments(self, other: FeatureMoments) -> float:
        """The distance of a normal distribution with these moments."""
        inner = np.linalg.eigvalsh(self.root @ other.covariance @ self.root)
        difference = self.mean - other.mean
        shared = np.sqrt(inner.clip(0, None)).sum()
        return float(difference @ difference + self.trace + np.trace(other.covariance) - 2 * shared)


def frechet_to(reference: FeatureMoments) -> Frechet:
    """Prepare the distance to the normal distribution with these moments."""
    values, vectors = np.linalg.eigh(reference.covariance)
    root = (vectors * np.sqrt(values.clip(0, None))) @ vectors.T
    return Frechet(mean=reference.mean, root=root, trace=float(np.trace(reference.covariance)))
