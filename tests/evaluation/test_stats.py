"""Intervals: tabulated values, coverage, pairing, and what is not scored."""

import math

import numpy as np
import pytest

from lavibridge.evaluation.stats import bootstrap_interval, estimate, paired_difference, wilson_interval


def test_wilson_has_the_known_values():
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson_interval(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_bootstrap_covers_the_truth_over_prompts():
    """Prompts differ in difficulty: 95 % intervals over prompts hold the true mean about that often."""
    rng, hits, runs = np.random.default_rng(0), 0, 200
    for _ in range(runs):
        difficulty = rng.beta(2, 2, size=60)
        clusters = [list((rng.random(4) < p).astype(float)) for p in difficulty]
        low, high = bootstrap_interval(clusters)
        hits += low <= 0.5 <= high
    assert 0.88 <= hits / runs <= 0.99


def test_paired_is_narrower_than_two_intervals():
    rng = np.random.default_rng(1)
    hard = rng.random(200)
    ours = {str(i): [float(rng.random() < p + 0.05)] for i, p in enumerate(hard * 0.9)}
    theirs = {name: [score[0] * 0.9] for name, score in ours.items()}
    paired, alone = paired_difference(ours, theirs), estimate(ours)
    assert paired.n == 200
    assert paired.high - paired.low < alone.high - alone.low
    assert paired.low > 0


def test_what_is_not_scored_is_kept_and_counted():
    found = estimate({"a": [1.0], "b": [math.nan], "c": [0.0]})
    assert (found.n, found.mean, found.unscored) == (2, 0.5, 1)
    nothing = estimate({"a": [math.nan]}).record()
    assert nothing == {"n": 0, "mean": None, "low": None, "high": None, "unscored": 1}


def test_the_same_scores_give_the_same_interval():
    scores = {str(i): [0.0, 1.0, float(i % 3 == 0)] for i in range(40)}
    assert estimate(scores) == estimate(scores)
