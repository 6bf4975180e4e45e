"""Agreement of judges, against scikit-learn's and scipy's definitions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavibridge.evaluation.agreement import auroc, kendall_tau, metric_agreement, spearman

scipy_stats = pytest.importorskip("scipy.stats")
metrics = pytest.importorskip("sklearn.metrics")


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 1)), min_size=4, max_size=40))
def test_both_measures_are_the_libraries_ties_included(rows: list[tuple[int, int]]) -> None:
    scores, right = np.array([r[0] for r in rows], float), np.array([r[1] for r in rows], float)
    if 0 < right.sum() < len(right):
        assert auroc(scores, right) == pytest.approx(metrics.roc_auc_score(right, scores))
    else:
        assert math.isnan(auroc(scores, right))
    expected = scipy_stats.kendalltau(scores, right).statistic
    assert kendall_tau(scores, right) == pytest.approx(expected, nan_ok=True)


def test_the_interval_holds_the_value_and_narrows_with_n() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for n in (40, 640):
        right = (rng.random(n) < 0.5).astype(float)
        found = metric_agreement(auroc, list(right + rng.normal(size=n)), list(right))
        assert found.low < found.mean < found.high
        assert found.n == n
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 2


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=12))
def test_the_rank_correlation_is_the_librarys_ties_included(rows: list[tuple[int, int]]) -> None:
    first, second = np.array([r[0] for r in rows], float), np.array([r[1] for r in rows], float)
    found = spearman(first, second)
    assert found.n == len(rows)
    if len(set(first)) > 1 and len(set(second)) > 1:
        assert found.rho == pytest.approx(scipy_stats.spearmanr(first, second).statistic)
        assert 0 < found.p <= 1
    else:
        assert math.isnan(found.rho)
        assert found.record() == {"n": len(rows), "rho": None, "p": None}


def test_the_p_value_counts_orders() -> None:
    """Of three values, 2 of 6 orders are as far from 0 as the one that agrees; of ten, hardly any is."""
    assert spearman(np.arange(3.0), np.arange(3.0)).p == pytest.approx(2 / 6)
    assert spearman(np.arange(10.0), np.arange(10.0)).p == pytest.approx(1 / 10_001, rel=2)
