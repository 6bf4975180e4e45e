"""Soft-TIFA's means, and the spellings of an answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavibridge.evaluation.benchmarks.soft_tifa import (
    tifa_arithmetic_mean,
    tifa_geometric_mean,
    tifa_spellings,
)


def test_by_hand():
    assert tifa_arithmetic_mean([0.5, 0.5, 0.125]) == pytest.approx(0.375)
    assert tifa_geometric_mean([0.5, 0.5, 0.125]) == pytest.approx(2 ** (-5 / 3))
    assert tifa_geometric_mean([1.0, 1.0, 0.0]) == 0
    assert tifa_geometric_mean([1e-300] * 5) == pytest.approx(1e-300)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_the_whole_is_never_better_than_the_parts(values):
    assert min(values) - 1e-9 <= tifa_geometric_mean(values) <= tifa_arithmetic_mean(values) + 1e-9
    assert tifa_geometric_mean(values) == pytest.approx(tifa_geometric_mean(values[::-1]))


def test_spellings():
    assert set(tifa_spellings("Yes")) == {"yes", "Yes", " yes", " Yes"}
    assert set(tifa_spellings("two")) == {"two", "Two", " two", " Two", "2", " 2"}
    assert tifa_spellings(" ONE ") == tifa_spellings("one")
