"""Means, intervals and corrections against values computed by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavibridge.evaluation.stats import holm_correction, wilson_interval
from lavibridge.study.intervals import _drawn, difference_interval, mean_interval

NOTHING = math.nan


def test_the_mean_counts_every_seed_alike_and_leaves_out_what_was_not_scored() -> None:
    found = mean_interval(np.array([[1.0, 0.0, NOTHING, 1.0], [1.0, 1.0, 1.0, 0.0], [NOTHING] * 4]))
    assert found.mean == pytest.approx((2 / 3 + 3 / 4) / 2)
    assert (found.seeds, found.prompts, found.unscored) == (2, 4, 1)
    assert found.low < found.mean < found.high


def test_the_spread_is_that_of_the_mean_over_seeds_and_over_prompts() -> None:
    """Var of the mean = s^2 / n for each margin alone; plain draws would give (n - 1) / n of it."""
    seeds = np.array([0.2, 0.5, 0.9])
    only_seeds = np.repeat(seeds[:, None], 50, axis=1)
    assert _drawn(only_seeds).std() == pytest.approx(seeds.std(ddof=1) / math.sqrt(3), rel=0.03)
    prompts = np.random.default_rng(0).random(40)
    assert _drawn(prompts[None]).std() == pytest.approx(prompts.std(ddof=1) / math.sqrt(40), rel=0.03)


def test_all_right_is_no_certainty() -> None:
    found = mean_interval(np.ones((3, 20)))
    assert (found.mean, found.low, found.high) == (1.0, *wilson_interval(20, 20))
    assert math.isnan(mean_interval(np.full((2, 3), NOTHING)).mean)


def test_differences_are_paired_by_seed_and_prompt() -> None:
    hard = np.random.default_rng(1).random((3, 60))
    ours, theirs = hard + 0.05, hard
    found = difference_interval(ours, theirs)
    assert (found.mean, found.low, found.high) == pytest.approx((0.05, 0.05, 0.05))
    assert found.p < 0.001
    assert mean_interval(ours).low < mean_interval(theirs).high, "apart, the two intervals say nothing"
    back = difference_interval(theirs, ours)
    assert (back.mean, back.p) == pytest.approx((-found.mean, found.p))
    same = difference_interval(ours, ours)
    assert (same.mean, same.p) == (0, 1)
    half = difference_interval(np.array([[1.0, 0.5]]), np.array([[0.0, NOTHING]]))
    assert (half.mean, half.prompts, half.unscored) == (1.0, 1, 1)


def test_few_prompts_that_agree_are_no_certainty() -> None:
    found = difference_interval(np.ones((3, 4)), np.zeros((3, 4)))
    assert (found.mean, found.high) == (1.0, 1.0)
    assert found.low == 1 - wilson_interval(0, 4)[1]
    assert found.p == 2 / 2**4, "of the 16 ways to sign four prompts, two are as far"
    same = difference_interval(np.ones((1, 50)), np.ones((1, 50)))
    assert (same.mean, same.low, same.high, same.p) == (
        0,
        -wilson_interval(0, 50)[1],
        wilson_interval(0, 50)[1],
        1,
    )


def test_p_is_rarely_small_where_there_is_no_difference() -> None:
    rng = np.random.default_rng(2)
    found = [difference_interval(rng.random((1, 40)), rng.random((1, 40))).p for _ in range(60)]
    assert sum(p < 0.05 for p in found) <= 9


def test_holm_by_hand() -> None:
    assert holm_correction([0.01, 0.04, 0.03, NOTHING]) == pytest.approx(
        [0.03, 0.06, 0.06, NOTHING], nan_ok=True
    )
    assert holm_correction([0.6, 0.7]) == [1.0, 1.0]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_a_p_nor_changes_their_order(values: list[float]) -> None:
    found = holm_correction(values)
    assert all(a >= b for a, b in zip(found, values, strict=True))
    order = sorted(range(len(values)), key=lambda place: values[place])
    assert [found[place] for place in order] == sorted(found)
