"""Predicts the score of a pair of models that was never measured from the scores of pairs that were.

    logit(share of language model i with vision model j) = a_i + b_j

Logistic regression fits the a and b to the pictures that each measured pair drew right. Half a picture right
and half a picture wrong are added to each pair, so that 0 of 60 has a finite logit (Haldane 1956, Ann. Hum.
Genet. 20; Anscombe 1956, Biometrika 43). Where measured pairs are left over to check the sum, their excess
spread widens the intervals (quasi-likelihood: Wedderburn 1974, Biometrika 61).

A pair is predicted only if measured pairs lead from its language model to its vision model: with A+x, B+x
and B+y measured, A+y follows; without B+x nothing is known of A+y.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from lavibridge.evaluation.stats import Z95, Estimate

Pair = tuple[str, str]
"""A language model and a vision model."""
_ITERATIONS, _CLOSE, _LONGEST = 100, 1e-10, 2.0
"""Of Newton's method: the most steps, the change at which it ends, and the longest step in any number."""


@dataclass(frozen=True, kw_only=True)
class LeaveOneOut:
    """How far measured pairs lie from predictions that the other pairs make of them."""

    n: int
    """Measured pairs that the others identify."""
    error: float
    """Mean absolute difference of shares; NaN without any."""


def predict_pairs(measured: Mapping[Pair, Estimate]) -> dict[Pair, Estimate]:
    """Return a prediction for each pair that was not measured and that the measured ones identify.

    ``measured`` has the share and the number of scored pictures of each pair. The 95 % intervals count the
    sampling of the measured pairs; `n` is 0, as no picture was drawn.
    """
    predicted: dict[Pair, Estimate] = {}
    for part in _connected(measured):
        rows = list(dict.fromkeys(row for row, _ in part))
        columns = list(dict.fromkeys(column for _, column in part))
        unmeasured = [(row, column) for row in rows for column in columns if (row, column) not in part]
        if not unmeasured:
            continue
        weights, covariance = _fit(_design(list(part), rows, columns), list(part.values()))
        for pair, x in zip(unmeasured, _design(unmeasured, rows, columns), strict=True):
            middle, reach = float(x @ weights), Z95 * math.sqrt(float(x @ covariance @ x))
            low, mean, high = (_share(value) for value in (middle - reach, middle, middle + reach))
            predicted[pair] = Estimate(n=0, mean=mean, low=low, high=high)
    return predicted


def leave_one_out(measured: Mapping[Pair, Estimate]) -> LeaveOneOut:
    """Predict each measured pair from the others, and compare."""
    errors = []
    for pair, score in measured.items():
        others = {other: value for other, value in measured.items() if other != pair}
        predicted = predict_pairs(others).get(pair)
        if predicted is not None:
            errors.append(abs(predicted.mean - score.mean))
    return LeaveOneOut(n=len(errors), error=math.fsum(errors) / len(errors) if errors else math.nan)


def _connected(measured: Mapping[Pair, Estimate]) -> list[dict[Pair, Estimate]]:
    """Return the measured pairs in groups that share no model."""
    groups: list[dict[Pair, Estimate]] = []
    for pair, score in measured.items():
        touching = [group for group in groups if any(_share_a_model(pair, other) for other in group)]
        joined = {pair: score}
        for group in touching:
            joined = {**group, **joined}
        groups = [group for group in groups if group not in touching] + [joined]
    return groups


def _share_a_model(first: Pair, second: Pair) -> bool:
    return first[0] == second[0] or first[1] == second[1]


def _design(pairs: list[Pair], rows: list[str], columns: list[str]) -> Float[np.ndarray, "pair weight"]:
    """Return a row for each pair: an indicator of every row, and of every column but the first."""
    found = np.zeros((len(pairs), len(rows) + len(columns) - 1))
    for place, (row, column) in enumerate(pairs):
        found[place, rows.index(row)] = 1
        if columns.index(column):
            found[place, len(rows) + columns.index(column) - 1] = 1
    return found


def _fit(
    x: Float[np.ndarray, "pair weight"], scores: list[Estimate]
) -> tuple[Float[np.ndarray, " weight"], Float[np.ndarray, "weight weight"]]:
    """Return the weights and their covariance."""
    counts = np.array([score.n + 1.0 for score in scores])
    shares = np.array([(score.mean * score.n + 0.5) / (score.n + 1) for score in scores])
    weights = np.zeros(x.shape[1])
    for _ in range(_ITERATIONS):
        fitted = 1 / (1 + np.exp(-x @ weights))
        information = x.T @ (x * (counts * fitted * (1 - fitted))[:, None])
        step = np.linalg.solve(information, x.T @ (counts * (shares - fitted)))
        weights = weights + np.clip(step, -_LONGEST, _LONGEST)
        if np.abs(step).max() < _CLOSE:
            break
    fitted = 1 / (1 + np.exp(-x @ weights))
    variance = fitted * (1 - fitted)
    spare = len(scores) - x.shape[1]
    excess = float((counts * (shares - fitted) ** 2 / variance).sum()) / spare if spare else 1.0
    information = x.T @ (x * (counts * variance)[:, None])
    return weights, max(1.0, excess) * np.linalg.inv(information)


def _share(logit: float) -> float:
    return (1 + math.tanh(logit / 2)) / 2
