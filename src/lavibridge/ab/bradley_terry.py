"""Fits run strengths to votes with ties: the Bradley-Terry model with Davidson's ties.

    P(i beats j) = a_i / (a_i + a_j + nu sqrt(a_i a_j))        a = exp(theta), sum of theta = 0
    P(a tie)     = nu sqrt(a_i a_j) / (the same)
    V            = H+ G H+,   G = sum over clusters of s s^T   s = summed gradients of a cluster's votes

This is a multinomial logit of three alternatives with utilities theta_i, theta_j and log nu + (theta_i +
theta_j) / 2, so the log-likelihood is concave and Newton's method finds its maximum. Votes on one prompt, or
by one rater, are not independent. The two clusterings are crossed, so G is that of prompts plus that of
raters minus that of their intersection. Reports the widest of the three intervals (prompts, raters, crossed).

Bradley and Terry 1952, Biometrika 39; Davidson 1970, J. Am. Stat. Assoc. 65; Cameron, Gelbach and Miller
2011, J. Bus. Econ. Stat. 29.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from lavibridge.evaluation.stats import Z95

ELO_POINTS = 400 / math.log(10)
"""Elo points per unit of theta: 400 points are odds of ten to one."""
_STEPS = 200
FIRST, SECOND, TIE = 0, 1, 2

Votes = Int[np.ndarray, " vote"]


@dataclass(frozen=True, kw_only=True)
class BradleyTerryVotes:
    """Votes as arrays with one entry per vote: the two runs, the outcome, and the clusters."""

    first: Votes
    second: Votes
    outcome: Votes
    """FIRST, SECOND or TIE."""
    prompt: Votes
    rater: Votes


@dataclass(frozen=True, kw_only=True)
class BradleyTerryStrengths:
    """The fitted model."""

    theta: Float[np.ndarray, " run"]
    """Log strengths that sum to 0."""
    nu: float
    """The propensity to tie; 0 without ties."""
    covariances: Float[np.ndarray, "way run run"]
    """Covariances of theta: clustered by prompt, by rater, and crossed."""

    def interval(self, contrast: Sequence[float]) -> tuple[float, float, float]:
        """A weighted sum of theta with its 95 % interval: mean, low, high."""
        weights = np.array(contrast, dtype=float)
        mean = float(weights @ self.theta)
        reach = Z95 * math.sqrt(max(0.0, *(float(weights @ way @ weights) for way in self.covariances)))
        return mean, mean - reach, mean + reach


def fit_strengths(ballots: BradleyTerryVotes, runs: int) -> BradleyTerryStrengths | None:
    """The maximum-likelihood strengths; None if there is no maximum (see `has_finite_strengths`)."""
    if not has_finite_strengths(ballots, runs):
        return None
    design = _design(ballots, runs)
    size = design.shape[2]
    values = np.zeros(size)
    reached, gradients, curvature = _derivatives(values, design, ballots.outcome)
    for _ in range(_STEPS):
        step = np.linalg.pinv(curvature, rcond=1e-10, hermitian=True) @ gradients.sum(axis=0)
        if float(np.abs(step).max()) < 1e-10:
            break
        while _derivatives(values + step, design, ballots.outcome)[0] < reached - 1e-9:
            step = step / 2
        values = values + step
        reached, gradients, curvature = _derivatives(values, design, ballots.outcome)
    bread = np.linalg.pinv(curvature, rcond=1e-10, hermitian=True)
    by_prompt, by_rater = _meat(gradients, ballots.prompt), _meat(gradients, ballots.rater)
    by_both = _meat(gradients, ballots.prompt * (int(ballots.rater.max()) + 1) + ballots.rater)
    ways = [bread @ meat @ bread for meat in (by_prompt, by_rater, by_prompt + by_rater - by_both)]
    theta = values[:runs] - values[:runs].mean()
    return BradleyTerryStrengths(
        theta=theta,
        nu=math.exp(values[runs]) if size > runs else 0.0,
        covariances=np.stack([way[:runs, :runs] for way in ways]),
    )


def has_finite_strengths(ballots: BradleyTerryVotes, runs: int) -> bool:
    """Whether the likelihood has a maximum: no run or group of runs always wins, or never loses.

    There is none exactly if the parameters can diverge without making any vote less likely. With the tie
    parameter fixed, this happens unless every run reaches every other along "won against or tied with". With
    the tie parameter free, it happens if numbers x exist with x_winner - x_loser >= 1 for each win and
    |x_i - x_j| <= 1 for each tie. Such numbers exist unless a cycle of these constraints has negative length
    (Bellman 1958, Q. Appl. Math. 16).
    """
    reach = np.full((runs, runs), np.inf)
    limit = np.full((runs, runs), np.inf)
    np.fill_diagonal(reach, 0.0)
    np.fill_diagonal(limit, 0.0)
    for first, second, outcome in set(
        zip(ballots.first.tolist(), ballots.second.tolist(), ballots.outcome.tolist(), strict=True)
    ):
        if outcome == TIE:
            for a, b in ((first, second), (second, first)):
                reach[a, b] = 0.0
                limit[a, b] = min(limit[a, b], 1.0)
        else:
            winner, loser = (first, second) if outcome == FIRST else (second, first)
            reach[winner, loser] = 0.0
            limit[winner, loser] = -1.0
    for through in range(runs):
        for each in (reach, limit):
            np.minimum(each, each[:, through, None] + each[None, through], out=each)
    is_connected = bool(np.isfinite(reach).all())
    return is_connected and (TIE not in ballots.outcome or bool((np.diag(limit) < 0).any()))


def _design(ballots: BradleyTerryVotes, runs: int) -> Float[np.ndarray, "vote alternative parameter"]:
    """Each alternative's utility as weights of the parameters; without ties there are two alternatives."""
    rows = np.arange(len(ballots.outcome))
    with_ties = int(TIE in ballots.outcome)
    design = np.zeros((len(rows), 2 + with_ties, runs + with_ties))
    design[rows, FIRST, ballots.first] = 1.0
    design[rows, SECOND, ballots.second] = 1.0
    if with_ties:
        design[rows, TIE, ballots.first] = design[rows, TIE, ballots.second] = 0.5
        design[rows, TIE, runs] = 1.0
    return design


def _derivatives(
    values: Float[np.ndarray, " parameter"],
    design: Float[np.ndarray, "vote alternative parameter"],
    outcome: Votes,
) -> tuple[float, Float[np.ndarray, "vote parameter"], Float[np.ndarray, "parameter parameter"]]:
    """Log likelihood, each vote's gradient of it, and its curvature (minus the second derivative)."""
    rows = np.arange(len(outcome))
    utilities = design @ values
    utilities = utilities - utilities.max(axis=1, keepdims=True)
    chances = np.exp(utilities)
    chances = chances / chances.sum(axis=1, keepdims=True)
    weighted = chances[:, :, None] * design
    mean, size = weighted.sum(axis=1), len(values)
    curvature = weighted.reshape(-1, size).T @ design.reshape(-1, size) - mean.T @ mean
    return float(np.log(chances[rows, outcome]).sum()), design[rows, outcome] - mean, curvature


def _meat(
    gradients: Float[np.ndarray, "vote parameter"], cluster: Votes
) -> Float[np.ndarray, "parameter parameter"]:
    """Outer products of summed gradients per cluster, with the small-sample factor; 0 for one cluster."""
    names, places = np.unique(cluster, return_inverse=True)
    count = len(names)
    sums = np.zeros((count, gradients.shape[1]))
    np.add.at(sums, places, gradients)
    return sums.T @ sums * (count / (count - 1) if count > 1 else 0.0)
