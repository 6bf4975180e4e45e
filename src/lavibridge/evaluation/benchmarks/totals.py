"""Totals of benchmarks that are not plain means over pictures, with 95 % intervals over prompts."""

import math
from collections.abc import Mapping, Sequence

from lavibridge.evaluation.base import ScoredTask
from lavibridge.evaluation.stats import Estimate, bootstrap_interval_of, estimate

_Cluster = tuple[str, tuple[float, ...]]
"""A prompt's category and the scores of its pictures."""


def total_over_categories(
    scored: Sequence[ScoredTask], weights: Mapping[str, float] | None = None
) -> Estimate:
    """The mean of the categories' means, unweighted by default.

    With ``weights``, which sum to 1, the mean is NaN unless every category of them has a score.
    """
    clusters: dict[tuple[str, str], list[float]] = {}
    unscored = 0
    for each in scored:
        if math.isnan(each.score.value):
            unscored += 1
        else:
            clusters.setdefault((each.category, each.prompt), []).append(each.score.value)
    kept: list[_Cluster] = [(category, tuple(found)) for (category, _), found in clusters.items()]
    if not kept:
        return Estimate(n=0, mean=math.nan, low=math.nan, high=math.nan, unscored=unscored)

    def mean(clusters: Sequence[_Cluster]) -> float:
        return _mean_of_means(clusters, weights)

    low, high = bootstrap_interval_of(kept, mean)
    n = sum(len(found) for _, found in kept)
    return Estimate(n=n, mean=mean(kept), low=low, high=high, unscored=unscored)


def total_of_any_picture(scored: Sequence[ScoredTask]) -> Estimate:
    """The share of prompts with at least one picture that scores 1; ignores prompts without scores."""
    best: dict[str, float] = {}
    for each in scored:
        key = f"{each.category}/{each.prompt}"
        before, now = best.get(key, math.nan), each.score.value
        best[key] = now if math.isnan(before) else before if math.isnan(now) else max(before, now)
    return estimate({key: [value if math.isnan(value) else float(value == 1)] for key, value in best.items()})


def totals_by_part(parts: Sequence[tuple[ScoredTask, Mapping[str, Sequence[float]]]]) -> dict[str, Estimate]:
    """The mean of each part's values over all pictures; pictures without a score have none."""
    found: dict[str, dict[str, list[float]]] = {}
    for each, values in parts:
        for name, numbers in values.items():
            found.setdefault(name, {}).setdefault(f"{each.category}/{each.prompt}", []).extend(numbers)
    return {name: estimate(found[name]) for name in sorted(found)}


def _mean_of_means(clusters: Sequence[_Cluster], weights: Mapping[str, float] | None) -> float:
    values: dict[str, list[float]] = {}
    for category, found in clusters:
        values.setdefault(category, []).extend(found)
    means = {category: math.fsum(each) / len(each) for category, each in values.items()}
    if weights is None:
        return math.fsum(means.values()) / len(means)
    return math.fsum(weight * means.get(category, math.nan) for category, weight in weights.items())
