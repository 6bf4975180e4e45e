"""Agreement against worked examples that are published, and what it must not depend on."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavibridge.ab.reliability import fleiss_kappa, krippendorff_alpha, mirrored_ratings

FOURTEEN = """0 0 0 0 14  0 2 6 4 2  0 0 3 5 6  0 3 9 2 0  2 2 8 1 1
              7 7 0 0 0  3 2 6 3 0  2 5 3 2 2  6 5 2 1 0  0 2 2 3 7"""
"""Ten things, fourteen raters, five values: the example of the article "Fleiss' kappa" of Wikipedia."""
FOUR = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]
"""Four observers, twelve things, ratings missing: example C of Krippendorff 2011."""

TABLES = st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=2, max_size=12).map(
    lambda rows: np.array(rows, dtype=float)
)


def four_observers() -> np.ndarray:
    table = np.zeros((12, 5))
    for said in FOUR:
        for thing, value in enumerate(said):
            if value != ".":
                table[thing, int(value) - 1] += 1
    return table


def test_fleiss_example() -> None:
    table = np.array(FOURTEEN.split(), dtype=float).reshape(10, 5)
    assert fleiss_kappa(table) == pytest.approx(0.210, abs=5e-4)


def test_krippendorffs_example() -> None:
    assert krippendorff_alpha(four_observers()) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(four_observers(), "ordinal") == pytest.approx(0.815, abs=5e-4)


def test_alpha_is_kappa_corrected_for_few_ratings() -> None:
    """With two raters for each thing: alpha = 1 - (1 - kappa) (2n - 1) / 2n, n things."""
    rng = np.random.default_rng(0)
    table = np.zeros((40, 3))
    for row in table:
        for value in rng.integers(0, 3, size=2):
            row[value] += 1
    assert krippendorff_alpha(table) == pytest.approx(1 - (1 - fleiss_kappa(table)) * 79 / 80)


@pytest.mark.parametrize(
    "measure", [fleiss_kappa, krippendorff_alpha, lambda table: krippendorff_alpha(table, "ordinal")]
)
def test_the_ends_of_the_scale(measure) -> None:  # type: ignore[no-untyped-def]
    agreed = np.array([[3.0, 0, 0], [0, 0, 2], [0, 4, 0]])
    assert measure(agreed) == pytest.approx(1)
    assert math.isnan(measure(np.array([[1.0, 0, 0], [0, 1, 0]]))), "nobody shares a thing"
    assert math.isnan(measure(np.array([[0.0, 2, 0], [0, 3, 0]]))), "one value says nothing"
    coins = np.random.default_rng(0).multinomial(5, [0.4, 0.2, 0.4], size=4000).astype(float)
    assert abs(measure(coins)) < 0.02


@settings(deadline=None, max_examples=40)
@given(TABLES, st.integers(0, 11))
def test_which_picture_came_first_does_not_matter(table: np.ndarray, place: int) -> None:
    turned = table.copy()
    turned[place % len(table)] = turned[place % len(table), ::-1]
    for measure in (fleiss_kappa, krippendorff_alpha):
        ours, theirs = measure(mirrored_ratings(table)), measure(mirrored_ratings(turned))
        assert ours == pytest.approx(theirs, nan_ok=True)
