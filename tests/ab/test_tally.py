"""Counts of votes: the sign test against scipy, Wilson with ties, and what swapping does."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from lavibridge.ab.raters import describe_raters, retest_raters
from lavibridge.ab.tally import tally_votes
from lavibridge.evaluation.stats import sign_test, wilson_interval

MakeVote = Callable[..., Any]


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 300), st.integers(0, 300))
def test_the_sign_test_is_scipys(wins: int, losses: int) -> None:
    expected = binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert sign_test(wins, losses) == pytest.approx(expected, rel=1e-9)


def test_a_pair_is_counted_from_either_side(cast: MakeVote) -> None:
    votes = [
        cast(0, 1, 0, prompt="a"),
        cast(1, 0, 0, prompt="a"),
        cast(1, 0, 1, prompt="a"),
        cast(0, 1, 0, prompt="b"),
        cast(0, 1, None, prompt="c"),
        cast(0, 2, 2, prompt="c"),
    ]
    ours = tally_votes(votes, 0, 1)
    assert (ours.wins, ours.losses, ours.ties, ours.prompts) == (3, 1, 1, 3)
    assert ours.p == sign_test(3, 1)
    assert ours.p_prompts == sign_test(2, 0), "two prompts lean to it, one leans nowhere"
    rate = ours.record()["win_rate"]
    assert rate["mean"] == 0.7
    assert (rate["low"], rate["high"]) == wilson_interval(3.5, 5)
    theirs = tally_votes(votes, 1, 0).record()["win_rate"]
    assert theirs["mean"] == pytest.approx(1 - rate["mean"])
    assert theirs["low"] == pytest.approx(1 - rate["high"])
    assert tally_votes(votes, 1, 2).record()["win_rate"] is None


def test_raters_are_described_and_asked_again(cast: MakeVote) -> None:
    votes = [
        cast(0, 1, 0, item="aa", left="first", ms=2000),
        cast(0, 1, None, item="bb", left="first", ms=4000),
        cast(1, 0, 0, item="cc", left="first", ms=9000, repeat_of="aa"),
        cast(1, 0, 1, item="dd", left="second", ms=9000, repeat_of="bb"),
        cast(1, 0, 1, item="ee", repeat_of="zz"),
        cast(0, 1, 1, item="aa", rater="ben", left="first"),
    ]
    assert retest_raters(votes) == {
        "n": 2,
        "mean": 0.5,
        "low": wilson_interval(1, 2)[0],
        "high": wilson_interval(1, 2)[1],
    }
    anna = describe_raters(votes)["anna"]
    assert (anna["votes"], anna["seconds"]) == (5, 4.0)
    assert (anna["ties"]["mean"], anna["ties"]["n"]) == (0.2, 5)
    assert (anna["left"]["mean"], anna["left"]["n"]) == (0.5, 4), "of votes for a picture"
    assert describe_raters(votes)["ben"]["retest"] == {"n": 0, "mean": None, "low": None, "high": None}
