"""Means over prompts and seeds, with intervals that account for the choice of both.

    scores[s, p] = score of seed s on prompt p                         NaN if not scored
    mean         = mean over s of (mean over p)                        every seed has equal weight
    interval     = percentiles of that mean over crossed resamples of seeds and prompts
    p            = the larger of 2 min(share of draws <= 0, share >= 0) and that of random sign flips over
    prompts

Resampling both margins of the table is the pigeonhole bootstrap (Owen 2007, Ann. Appl. Stat. 1, arXiv
0712.1111). It draws n - 1 of n, because n draws of three seeds would show only two thirds of their variance
(Rao, Wu and Yue 1992, Surv. Methodol. 18). Three seeds still give a rough interval; with one seed only
prompts are resampled. Holm 1979, Scand. J. Stat. 6, corrects for multiple comparisons.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float, UInt16
from numpy import ndarray

from lavibridge.evaluation.stats import BOOTSTRAP_SEED, sign_flip_p, wilson_interval

_DRAWS = 10_000
_CHUNK = 1_000
"""Resamples at a time, to limit memory."""
ScoreMatrix = Float[ndarray, "seed prompt"]


@dataclass(frozen=True, kw_only=True)
class MeanInterval:
    """A mean with its 95 % interval over prompts and seeds."""

    mean: float
    low: float
    high: float
    seeds: int
    prompts: int
    unscored: int = 0
    """Pairs of a finished seed and a prompt without a score; excluded from the mean."""


@dataclass(frozen=True, kw_only=True)
class DifferenceInterval(MeanInterval):
    """A mean paired difference; `p` is the probability of one at least as large by chance."""

    p: float


def mean_interval(scores: ScoreMatrix) -> MeanInterval:
    """The mean of a condition; uses Wilson's interval over prompts if all scores are 0 or all are 1."""
    kept, counts = _kept(scores)
    if not kept.size:
        return MeanInterval(
            mean=math.nan, low=math.nan, high=math.nan, seeds=0, prompts=0, unscored=counts["unscored"]
        )
    mean = _mean(kept)
    if np.nanmin(kept) == np.nanmax(kept) and mean in (0.0, 1.0):
        low, high = wilson_interval(round(mean * kept.shape[1]), kept.shape[1])
    else:
        low, high = (float(value) for value in np.quantile(_drawn(kept), [0.025, 0.975]))
    return MeanInterval(mean=mean, low=low, high=high, **counts)


def difference_interval(ours: ScoreMatrix, theirs: ScoreMatrix) -> DifferenceInterval:
    """The mean of `ours` - `theirs`, paired by seed and prompt; rows and columns of both must match."""
    kept, counts = _kept(ours - theirs)
    if not kept.size:
        nothing = math.nan
        return DifferenceInterval(
            mean=nothing,
            low=nothing,
            high=nothing,
            p=nothing,
            seeds=0,
            prompts=0,
            unscored=counts["unscored"],
        )
    mean, drawn = _mean(kept), _drawn(kept)
    low, high = (float(value) for value in np.quantile(drawn, [0.025, 0.975]))
    if low == high and set(np.unique(ours)) | set(np.unique(theirs)) <= {0.0, 1.0}:
        reach = wilson_interval(0, kept.shape[1])[
            1
        ]  # no variance: this number of prompts may still hide a difference
        low, high = max(-1.0, mean - reach), min(1.0, mean + reach)
    fewest = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    p = max(2 * (fewest + 1) / (len(drawn) + 1), sign_flip_p(np.nanmean(kept, axis=0).tolist()))
    return DifferenceInterval(mean=mean, low=low, high=high, p=min(1.0, p), **counts)


def _kept(scores: ScoreMatrix) -> tuple[Float[ndarray, "_ _"], dict[str, int]]:
    """Drop unfinished seeds and unscored prompts, and count what is left."""
    known = ~np.isnan(scores)
    finished = known.any(axis=1)
    kept = scores[finished][:, known.any(axis=0)]
    unscored = int((~known[finished]).sum())
    return kept, {"seeds": kept.shape[0], "prompts": kept.shape[1], "unscored": unscored}


def _mean(kept: ScoreMatrix) -> float:
    return float(np.nanmean(kept, axis=1).mean())


def _drawn(kept: ScoreMatrix) -> Float[ndarray, " draw"]:
    """The mean under DRAWS resamples of seeds and prompts; skips resamples without any score."""
    known = ~np.isnan(kept)
    values = np.where(known, kept, 0.0).T
    parts = []
    for start in range(0, _DRAWS, _CHUNK):
        seeds, prompts = (
            _weights(count, place)[start : start + _CHUNK].astype(float)
            for place, count in enumerate(kept.shape)
        )
        sizes = prompts @ known.T
        means = np.divide(prompts @ values, sizes, out=np.zeros_like(sizes), where=sizes > 0)
        counted = seeds * (sizes > 0)
        total = counted.sum(axis=1)
        parts.append((counted * means).sum(axis=1)[total > 0] / total[total > 0])
    return np.concatenate(parts)


@lru_cache(maxsize=4)
def _weights(count: int, margin: int) -> UInt16[ndarray, "draw count"]:
    """How often each of `count` is drawn, the same for all conditions; a single one always is.

    Omits the weight n / (n - 1), which cancels in means.
    """
    if count == 1:
        return np.ones((_DRAWS, 1), dtype=np.uint16)
    rng = np.random.default_rng([BOOTSTRAP_SEED, margin])
    return rng.multinomial(count - 1, np.full(count, 1 / count), size=_DRAWS).astype(np.uint16)
