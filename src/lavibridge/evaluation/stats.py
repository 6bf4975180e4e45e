"""Confidence intervals and tests, all deterministic.

    Wilson      (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)          yes-or-no scores
    bootstrap   percentiles of the mean over resampled prompts                     any scores
    paired      the bootstrap of the mean difference between two systems per prompt
    sign flips  p = share of random sign flips whose mean difference is at least as far from 0
    sign test   p = min(1, 2 sum over k <= min(wins, losses) of C(n, k) / 2^n), n = wins + losses

Pictures of one prompt are not independent, so the bootstrap resamples prompts, never pictures (Wilson 1927,
J. Am. Stat. Assoc. 22; Efron 1979, Ann. Stat. 7; Fisher 1935, The Design of Experiments, section 21).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Z95 = 1.959963984540054
"""The 97.5th percentile of the normal distribution."""
_DRAWS = 2000
_FLIPS = 10_000
BOOTSTRAP_SEED = 20240311
Cluster = TypeVar("Cluster")


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean with its 95 % interval over `n` scored pictures; `unscored` counts those without a score."""

    n: int
    mean: float
    low: float
    high: float
    unscored: int = 0

    def record(self) -> dict[str, int | float | None]:
        """The estimate as JSON; null if nothing was scored, `unscored` only if there are any."""
        values = {"mean": self.mean, "low": self.low, "high": self.high}
        found: dict[str, int | float | None] = {"n": self.n}
        found |= {name: value if math.isfinite(value) else None for name, value in values.items()}
        return found | ({"unscored": self.unscored} if self.unscored else {})


def wilson_interval(right: int | float, n: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a share; (0, 1) if n is 0. A tie counts half."""
    if n == 0:
        return 0.0, 1.0
    share = right / n
    middle = share + Z95**2 / (2 * n)
    reach = Z95 * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n * n))
    scale = 1 + Z95**2 / n
    return max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)


def estimate(scores: Mapping[str, Sequence[float]]) -> Estimate:
    """The mean over pictures of scores by prompt; NaN means not scored.

    Uses Wilson's interval for one yes-or-no score per prompt, otherwise a bootstrap over prompts.
    """
    kept = {prompt: [s for s in each if not math.isnan(s)] for prompt, each in scores.items()}
    flat = [score for each in kept.values() for score in each]
    unscored = sum(map(len, scores.values())) - len(flat)
    if not flat:
        return Estimate(n=0, mean=math.nan, low=math.nan, high=math.nan, unscored=unscored)
    mean = math.fsum(flat) / len(flat)
    if all(len(each) <= 1 for each in kept.values()) and set(flat) <= {0.0, 1.0}:
        low, high = wilson_interval(round(math.fsum(flat)), len(flat))
    else:
        low, high = bootstrap_interval([each for each in kept.values() if each])
    return Estimate(n=len(flat), mean=mean, low=low, high=high, unscored=unscored)


def bootstrap_interval(clusters: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of all scores, resampling whole clusters."""
    sums = np.array([math.fsum(each) for each in clusters])
    sizes = np.array([len(each) for each in clusters])
    drawn = np.random.default_rng(BOOTSTRAP_SEED).integers(0, len(clusters), size=(_DRAWS, len(clusters)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def bootstrap_interval_of(
    clusters: Sequence[Cluster], statistic: Callable[[Sequence[Cluster]], float], draws: int = 1000
) -> tuple[float, float]:
    """The 95 % percentile interval of any statistic, resampling prompts; a cluster holds one prompt's values.

    Skips resamples for which the statistic is NaN; returns NaN, NaN if none is left.
    """
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    found = [
        statistic([clusters[place] for place in places])
        for places in rng.integers(0, len(clusters), size=(draws, len(clusters)))
    ]
    defined = [value for value in found if math.isfinite(value)]
    if not defined:
        return math.nan, math.nan
    low, high = np.quantile(defined, [0.025, 0.975])
    return float(low), float(high)


def sign_flip_p(differences: Sequence[float]) -> float:
    """Two-sided p-value of no difference, from one difference per prompt; exact for up to 13 prompts.

    Beyond that it uses FLIPS random sign flips plus the observed signs, so that p is never 0.
    """
    values = np.array(differences, dtype=float)
    if not len(values):
        return math.nan
    if 2 ** len(values) <= _FLIPS:
        bits = np.arange(2 ** len(values))[:, None] >> np.arange(len(values))
        signs, extra = 1.0 - 2.0 * (bits & 1), 0
        sums = np.abs(signs @ values)
    else:
        rng = np.random.default_rng(BOOTSTRAP_SEED)
        drawn = (rng.choice([-1.0, 1.0], size=(_FLIPS // 20, len(values))) @ values for _ in range(20))
        sums, extra = np.abs(np.concatenate(list(drawn))), 1
    as_far = int((sums >= abs(float(values.sum())) * (1 - 1e-12)).sum())
    return (as_far + extra) / (len(sums) + extra)


def paired_difference(ours: Mapping[str, Sequence[float]], theirs: Mapping[str, Sequence[float]]) -> Estimate:
    """How much higher `ours` scores than `theirs`, prompt by prompt, over the prompts that both have.

    `n` counts prompts. The interval is far narrower than two separate ones, since hard prompts are hard for
    both.
    """
    differences = []
    shared = [prompt for prompt in ours if prompt in theirs]
    for prompt in shared:
        a = [score for score in ours[prompt] if not math.isnan(score)]
        b = [score for score in theirs[prompt] if not math.isnan(score)]
        if a and b:
            differences.append(math.fsum(a) / len(a) - math.fsum(b) / len(b))
    unscored = len(shared) - len(differences)
    if not differences:
        return Estimate(n=0, mean=math.nan, low=math.nan, high=math.nan, unscored=unscored)
    low, high = bootstrap_interval([[difference] for difference in differences])
    mean = math.fsum(differences) / len(differences)
    return Estimate(n=len(differences), mean=mean, low=low, high=high, unscored=unscored)


def sign_test(wins: int, losses: int) -> float:
    """The exact two-sided p-value of equally good runs; 1 without any win or loss."""
    n = wins + losses
    tail = sum(math.comb(n, k) for k in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / 2**n)


def holm_correction(values: Sequence[float]) -> list[float]:
    """Correct p-values for multiple comparisons; ignores NaN, which marks no comparison."""
    adjusted = list(values)
    order = sorted((p, place) for place, p in enumerate(values) if not math.isnan(p))
    largest = 0.0
    for rank, (p, place) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        adjusted[place] = largest
    return adjusted
