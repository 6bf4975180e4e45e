"""Measures how well a learned scorer agrees with the exact checker.

    AUROC    the probability that a correct image outscores a wrong one; a tie counts half, 0.5 is chance
    tau-b    (concordant - discordant) / sqrt(pairs untied in x * pairs untied in y)       -1 .. 1
    rho      Pearson's correlation of the ranks, where equal values share their mean rank  -1 .. 1

Hanley and McNeil 1982, Radiology 143; Kendall 1945, Biometrika 33; Spearman 1904, Am. J. Psychol. 15.
Intervals: the bootstrap over pictures. The p-value of rho: all orders of up to 7 values, else random ones.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from jaxtyping import Float

from lavibridge.evaluation.stats import BOOTSTRAP_SEED, Estimate

Values = Float[np.ndarray, " picture"]
_DRAWS = 500
_ALL_ORDERS, _ORDERS = 7, 10_000
"""Most values whose orders are all tried, and the number of random orders beyond that."""


@dataclass(frozen=True, kw_only=True)
class Association:
    """A rank correlation."""

    n: int
    rho: float
    """Spearman's; NaN if either input is constant."""
    p: float
    """Two-sided: how often a random order is at least as far from 0; NaN with rho."""

    def record(self) -> dict[str, int | float | None]:
        """The correlation as JSON; null for NaN."""
        values = {"rho": self.rho, "p": self.p}
        return {"n": self.n, **{name: None if math.isnan(each) else each for name, each in values.items()}}


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


def spearman(first: Values, second: Values) -> Association:
    """Spearman's rank correlation with its permutation p-value."""
    n = len(first)
    a, b = (_centred_ranks(values) for values in (first, second))
    norm = math.sqrt(float(a @ a) * float(b @ b))
    if not norm:
        return Association(n=n, rho=math.nan, p=math.nan)
    rho = float(a @ b) / norm
    if n <= _ALL_ORDERS:
        orders = np.array(list(permutations(range(n))))
    else:
        rng = np.random.default_rng(BOOTSTRAP_SEED)
        orders = np.array([range(n), *(rng.permutation(n) for _ in range(_ORDERS))])
    others = b[orders] @ a / norm
    return Association(n=n, rho=rho, p=float((np.abs(others) >= abs(rho) - 1e-12).mean()))


def _centred_ranks(values: Values) -> Values:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2)[place]
    return np.asarray(ranks - ranks.mean())
