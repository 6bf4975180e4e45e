"""Improved precision (how many drawn pictures look real) and recall (how much of the reference is covered).

    ball(x) = around x, up to its k-th nearest neighbour in its own set
    precision = share of drawn pictures inside a ball of the reference
    recall    = share of the reference inside a ball of the drawn pictures

Kynkaanniemi et al. 2019 (arXiv 1904.06991), with k = 3.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float

from lavibridge.evaluation.sets.features import SetFeatures

_BLOCK = 1024
"""Rows of the distance matrix in memory at a time."""


def precision_recall_to(reference: SetFeatures, k: int) -> Callable[[SetFeatures], dict[str, float]]:
    """Return a function that computes precision and recall of a set against the reference."""
    fixed = _radii(reference, k)

    def measure(drawn: SetFeatures) -> dict[str, float]:
        own = _radii(drawn, k)
        return {
            "precision": float(_within(drawn, reference, fixed).mean()),
            "recall": float(_within(reference, drawn, own).mean()),
        }

    return measure


def _radii(features: SetFeatures, k: int) -> Float[np.ndarray, " picture"]:
    """Squared distance of each row to its k-th nearest neighbour, excluding itself."""
    found = [
        np.partition(_squares(features[i : i + _BLOCK], features), k, axis=1)[:, k]
        for i in range(0, len(features), _BLOCK)
    ]
    return np.concatenate(found)


def _within(
    points: Float[np.ndarray, "point width"],
    centres: Float[np.ndarray, "centre width"],
    radius: Float[np.ndarray, " centre"],
) -> Bool[np.ndarray, " point"]:
    """Whether each point is inside the ball of any centre."""
    found = [
        (_squares(points[i : i + _BLOCK], centres) <= radius[None]).any(axis=1)
        for i in range(0, len(points), _BLOCK)
    ]
    return np.concatenate(found)


def _squares(
    left: Float[np.ndarray, "left width"], right: Float[np.ndarray, "right width"]
) -> Float[np.ndarray, "left right"]:
    squares = (left**2).sum(1)[:, None] + (right**2).sum(1)[None] - 2 * left @ right.T
    return squares.clip(0, None)
