"""The squared maximum mean discrepancy under two kernels: KID and CMMD.

    MMD^2 = mean k(x, x') + mean k(y, y') - 2 mean k(x, y)

    KID     k = (x . y / width + 1)^3        unbiased: excludes pairs of a picture with itself; may be below 0
    CMMD    k = exp(-|x - y|^2 / 2 s^2)      s = 10, unit vectors, biased (includes such pairs), times 1000

Binkowski et al. 2018 (arXiv 1801.01401), on all pictures rather than random subsets of 1,000, whose mean has
the same expectation; Jayasumana et al. 2024 (arXiv 2401.09603).
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from lavibridge.evaluation.sets.features import SetFeatures

Left = Float[np.ndarray, "left width"]
Right = Float[np.ndarray, "right width"]
KernelFunction = Callable[[SetFeatures, SetFeatures], Float[np.ndarray, "left right"]]
_BLOCK = 2048
"""Rows of the kernel matrix in memory at a time."""
_SIGMA = 10.0
_CMMD_SCALE = 1000.0


def _kid_kernel(left: Left, right: Right) -> Float[np.ndarray, "left right"]:
    """The cubic kernel of KID."""
    return (left @ right.T / left.shape[1] + 1) ** 3


def _cmmd_kernel(left: Left, right: Right) -> Float[np.ndarray, "left right"]:
    """The Gaussian kernel of CMMD."""
    squares = (left**2).sum(1)[:, None] + (right**2).sum(1)[None] - 2 * left @ right.T
    return np.exp(-squares.clip(0, None) / (2 * _SIGMA**2))


def kid_kernel_distance(reference: SetFeatures) -> Callable[[SetFeatures], float]:
    """Return a function that computes the KID of a set to the reference."""
    own = _unbiased(_kid_kernel, reference)
    return lambda drawn: own + _unbiased(_kid_kernel, drawn) - 2 * _mean_kernel(_kid_kernel, drawn, reference)


def cmmd_kernel_distance(reference: SetFeatures) -> Callable[[SetFeatures], float]:
    """Return a function that computes the CMMD of a set to the reference, on unit-length features."""
    fixed = normalize_rows(reference)
    own = _mean_kernel(_cmmd_kernel, fixed, fixed)

    def measure(drawn: SetFeatures) -> float:
        x = normalize_rows(drawn)
        shared = _mean_kernel(_cmmd_kernel, x, fixed)
        return _CMMD_SCALE * (own + _mean_kernel(_cmmd_kernel, x, x) - 2 * shared)

    return measure


def normalize_rows(features: SetFeatures) -> SetFeatures:
    """Normalise each row to length 1; rows of zeros stay zero."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(length == 0, 1, length)


def _mean_kernel(kernel: KernelFunction, left: Left, right: Right) -> float:
    """The kernel's mean over all pairs."""
    total = sum(float(kernel(left[i : i + _BLOCK], right).sum()) for i in range(0, len(left), _BLOCK))
    return total / (len(left) * len(right))


def _unbiased(kernel: KernelFunction, features: SetFeatures) -> float:
    """The kernel's mean over all pairs of two different rows."""
    n = len(features)
    itself = sum(float(kernel(row[None], row[None])[0, 0]) for row in features)
    return (_mean_kernel(kernel, features, features) * n * n - itself) / (n * (n - 1))
