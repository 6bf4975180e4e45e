"""Measures how well a learned scorer agrees with the exact checker.

    AUROC    the probability that a correct image outscores a wrong one; a tie counts half, 0.5 is chance
    tau-b    (concordant - discordant) / sqrt(pairs untied in x * pairs untied in y)       -1 .. 1

Hanley and McNeil 1982, Radiology 143; Kendall 1945, Biometrika 33. Intervals: the bootstrap over pictures.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from lavibridge.evaluation.stats import BOOTSTRAP_SEED, Estimate

Values = Float[np.ndarray, " picture"]
_DRAWS = 500


def auroc(scores: Values, right: Values) -> float:
    """Area under the ROC curve of `scores` for images that are `right` (1) or not (0); NaN if all are one."""
    above, below = scores[right > 0], scores[right == 0]
    if not len(above) or not len(below):
        return math.nan
    difference = np.sign(above[:, None] - below[None])
    return float((difference.mean() + 1) / 2)


def kendall_tau(first: Values, second: Values) -> float:
    """Kendall's tau-b, which ignores ties; NaN if either input is constant."""
    upper = np.triu_indices(len(first), 1)
    a = np.sign(first[:, None] - first[None])[upper]
    b = np.sign(second[:, None] - second[None])[upper]
    untied = math.sqrt(float((a != 0).sum()) * float((b != 0).sum()))
    return float((a * b).sum()) / untied if untied else math.nan


def metric_agreement(
    measure: Callable[[Values, Values], float], scores: Sequence[float], truths: Sequence[float]
) -> Estimate:
    """A measure of agreement with its 95 % interval; skips resamples for which it is undefined."""
    x, y = np.array(scores, dtype=float), np.array(truths, dtype=float)
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    found = [measure(x[rows], y[rows]) for rows in rng.integers(0, len(x), size=(_DRAWS, len(x)))]
    defined = [value for value in found if math.isfinite(value)]
    mean = measure(x, y)
    if not defined or not math.isfinite(mean):
        return Estimate(n=len(x), mean=math.nan, low=math.nan, high=math.nan)
    low, high = np.quantile(defined, [0.025, 0.975])
    return Estimate(n=len(x), mean=mean, low=float(low), high=float(high))
