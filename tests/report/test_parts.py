"""The parts of a report that need no run: smoothing, thinning, charts, score tables."""

import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("matplotlib")

from lavibridge.report.charts import INK, POINTS, Series, bars, chart, smooth, thin

FINITE = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=50)


@given(FINITE, st.integers(1, 20))
def test_smoothing_stays_between_the_values(values: list[float], span: int) -> None:
    smoothed = smooth(values, span)
    assert len(smoothed) == len(values)
    assert min(values) - 1e-6 <= min(smoothed)
    assert max(smoothed) <= max(values) + 1e-6


def test_smoothing_over_one_value_changes_nothing() -> None:
    assert smooth([3.0, 1.0, 2.0], 1) == [3.0, 1.0, 2.0]


def test_smoothing_keeps_a_constant_from_its_first_value_on() -> None:
    assert smooth([2.0] * 5, 4) == pytest.approx([2.0] * 5)


def test_smoothing_passes_over_gaps() -> None:
    assert smooth([1.0, math.nan, 1.0], 2) == pytest.approx([1.0, 1.0, 1.0])
    assert math.isnan(smooth([math.nan, 1.0], 2)[0])


@given(st.integers(1, 3 * POINTS))
def test_thinning_keeps_both_ends_and_the_order(count: int) -> None:
    kept = thin([float(value) for value in range(count)])
    assert kept[0] == 0
    assert kept[-1] == count - 1
    assert kept == sorted(set(kept))
    assert len(kept) == min(count, POINTS)


def test_a_chart_is_valid_svg_in_the_pages_own_ink_and_the_same_every_time() -> None:
    line = Series(name='a "quoted" <run> & more', x=[1.0, 2.0, 3.0], y=[3.0, 2.0, 1.0], faint=[4.0, 2.0, 0.0])
    other = Series(name="other", x=[1.0, 2.0, 3.0], y=[1.0, math.nan, 2.0])
    drawn = chart("Loss", "step", "loss", [line, other], log_y=True)
    root = ET.fromstring(drawn)
    assert root.tag.endswith("svg")
    assert "3" in root.attrib["aria-label"]
    assert root.attrib["role"] == "img"
    assert INK not in drawn
    assert "currentColor" in drawn
    assert drawn == chart("Loss", "step", "loss", [line, other], log_y=True)


def test_two_charts_on_a_page_share_no_ids() -> None:
    line = Series(name="a", x=[1.0, 2.0], y=[1.0, 2.0])
    found = []
    for title in ("Loss", "Speed"):
        ids = [
            each.attrib["id"]
            for each in ET.fromstring(chart(title, "step", "value", [line])).iter()
            if "id" in each.attrib
        ]
        assert ids
        assert len(ids) == len(set(ids))
        found.append(set(ids))
    assert not found[0] & found[1]


def test_bars_leave_out_what_was_not_measured() -> None:
    group = Series(name="first", x=(), y=[0.1, math.nan])
    ET.fromstring(bars("Loss by time", "time", "loss", ("0.0", "0.1"), [group]))
