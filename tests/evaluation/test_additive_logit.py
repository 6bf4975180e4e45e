"""Scores of pairs that were never measured: recovered where logits add up, absent where nothing follows."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavibridge.evaluation.additive_logit import Pair, leave_one_out, predict_pairs
from lavibridge.evaluation.stats import Estimate, wilson_interval

LOGITS = {"A": 1.5, "B": 0.2, "C": -0.7, "x": 0.0, "y": -1.0, "z": 0.6}


def share(language: str, vision: str) -> float:
    return 1 / (1 + math.exp(-LOGITS[language] - LOGITS[vision]))


def score(right: float, n: int) -> Estimate:
    low, high = wilson_interval(right, n)
    return Estimate(n=n, mean=right / n, low=low, high=high)


def exact(pairs: str, n: int = 10**7) -> dict[Pair, Estimate]:
    """The true scores of pairs such as `Ax`, of many pictures."""
    return {(pair[0], pair[1]): score(share(*pair) * n, n) for pair in pairs.split()}


def test_pairs_that_follow_from_the_measured_ones_are_predicted() -> None:
    predicted = predict_pairs(exact("Ax Ay Bx Cy Cz"))
    assert set(predicted) == {("A", "z"), ("B", "y"), ("B", "z"), ("C", "x")}
    for pair, found in predicted.items():
        assert found.mean == pytest.approx(share(*pair), abs=1e-4)
        assert found.low < found.mean < found.high
        assert found.n == 0


@pytest.mark.parametrize("measured", ["", "Ax", "Ax By", "Ax Ay By Cz"])
def test_nothing_is_predicted_that_the_measured_pairs_do_not_lead_to(measured: str) -> None:
    predicted = predict_pairs(exact(measured))
    assert set(predicted) == ({("B", "x")} if measured == "Ax Ay By Cz" else set())


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 60)), min_size=3, max_size=3),
)
def test_any_counts_have_a_finite_prediction(counts: list[tuple[int, int]]) -> None:
    pairs = [("A", "x"), ("A", "y"), ("B", "x")]
    measured = {pair: score(min(right, n), n) for pair, (right, n) in zip(pairs, counts, strict=True)}
    found = predict_pairs(measured)["B", "y"]
    assert 0 < found.low < found.mean < found.high < 1


def test_three_pairs_give_the_fourth_by_their_odds() -> None:
    counts = {("A", "x"): 50, ("A", "y"): 20, ("B", "x"): 40}
    odds = {pair: (right + 0.5) / (60 - right + 0.5) for pair, right in counts.items()}
    expected = odds["A", "y"] * odds["B", "x"] / odds["A", "x"]
    found = predict_pairs({pair: score(right, 60) for pair, right in counts.items()})["B", "y"]
    assert found.mean == pytest.approx(expected / (1 + expected))


def test_the_interval_covers_the_truth_as_often_as_it_claims() -> None:
    rng = np.random.default_rng(0)
    pairs, rounds = ["Ax", "Ay", "Bx", "By", "Cx"], 400
    covered = 0
    for _ in range(rounds):
        measured = {(p[0], p[1]): score(float(rng.binomial(60, share(*p))), 60) for p in pairs}
        found = predict_pairs(measured)["C", "y"]
        covered += found.low <= share("C", "y") <= found.high
    assert 0.92 <= covered / rounds <= 0.99


def test_pairs_that_contradict_the_sum_widen_the_interval() -> None:
    rights = {("A", "x"): 30, ("A", "y"): 30, ("B", "x"): 30, ("B", "y"): 30, ("C", "x"): 30}
    crossed = {**rights, ("A", "x"): 55, ("A", "y"): 5, ("B", "x"): 5, ("B", "y"): 55}
    widths = []
    for counts in (rights, crossed):
        found = predict_pairs({pair: score(right, 60) for pair, right in counts.items()})["C", "y"]
        widths.append(found.high - found.low)
    assert widths[1] > 2 * widths[0]


def test_measured_pairs_check_the_sum() -> None:
    assert leave_one_out(exact("Ax Ay Bx")).n == 0
    assert math.isnan(leave_one_out({}).error)
    found = leave_one_out(exact("Ax Ay Bx By"))
    assert (found.n, found.error) == (4, pytest.approx(0, abs=1e-4))
    wrong = exact("Ax Ay Bx By") | {("B", "y"): score(0, 10**7)}
    assert leave_one_out(wrong).error > 0.1
