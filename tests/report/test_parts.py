"""The parts of a report that need no run: smoothing, thinning, charts, score tables."""

import math
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("matplotlib")

from lavibridge.report.charts import CHART_INK, draw_chart
from lavibridge.report.formatting import format_difference, format_estimate, format_fact, join_names
from lavibridge.report.series import (
    SERIES_POINTS,
    round_series,
    smooth_series,
    table_of_bin_series,
    table_of_line_series,
    thin_series,
)

FINITE = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=50)


@given(FINITE, st.integers(1, 20))
def test_smoothing_stays_between_the_values(values: list[float], span: int) -> None:
    smoothed = smooth_series(values, span)
    assert len(smoothed) == len(values)
    assert min(values) - 1e-6 <= min(smoothed)
    assert max(smoothed) <= max(values) + 1e-6


def test_smoothing_over_one_value_changes_nothing() -> None:
    assert smooth_series([3.0, 1.0, 2.0], 1) == [3.0, 1.0, 2.0]


def test_smoothing_keeps_a_constant_from_its_first_value_on() -> None:
    assert smooth_series([2.0] * 5, 4) == pytest.approx([2.0] * 5)


def test_smoothing_passes_over_gaps() -> None:
    assert smooth_series([1.0, math.nan, 1.0], 2) == pytest.approx([1.0, 1.0, 1.0])
    assert math.isnan(smooth_series([math.nan, 1.0], 2)[0])


@given(st.integers(1, 3 * SERIES_POINTS))
def test_thinning_keeps_both_ends_and_the_order(count: int) -> None:
    kept = thin_series([float(value) for value in range(count)])
    assert kept[0] == 0
    assert kept[-1] == count - 1
    assert kept == sorted(set(kept))
    assert len(kept) == min(count, SERIES_POINTS)


def chart(title: str, *series: dict[str, Any], kind: str = "lines", log_y: bool = False) -> dict[str, Any]:
    """A chart as report.json has it."""
    return {
        "title": title,
        "description": "",
        "kind": kind,
        "x_label": "step",
        "y_label": "loss",
        "log_y": log_y,
        "series": list(series),
    }


def line(name: str, y: list[float | None], faint: list[float | None] | None = None) -> dict[str, Any]:
    return {"name": name, "x": [float(step) for step in range(len(y))], "y": y, "faint": faint or []}


def test_a_chart_is_valid_svg_in_the_pages_own_ink_and_the_same_every_time() -> None:
    lines = line('a "quoted" <run> & more', [3.0, 2.0, 1.0], [4.0, 2.0, 0.0]), line("other", [1.0, None, 2.0])
    drawn = draw_chart(chart("Loss", *lines, log_y=True))
    root = ET.fromstring(drawn)
    assert root.tag.endswith("svg")
    assert "3" in root.attrib["aria-label"]
    assert root.attrib["role"] == "img"
    assert CHART_INK not in drawn
    assert "currentColor" in drawn
    assert drawn == draw_chart(chart("Loss", *lines, log_y=True))


def test_two_charts_on_a_page_share_no_ids() -> None:
    found = []
    for title in ("Loss", "Speed"):
        drawn = ET.fromstring(draw_chart(chart(title, line("a", [1.0, 2.0]))))
        ids = [each.attrib["id"] for each in drawn.iter() if "id" in each.attrib]
        assert ids
        assert len(ids) == len(set(ids))
        found.append(set(ids))
    assert not found[0] & found[1]


def test_series_differ_in_more_than_colour() -> None:
    drawn = draw_chart(chart("Loss", line("a", [1.0, 2.0]), line("b", [2.0, 1.0])))
    assert drawn.count("stroke-dasharray") > draw_chart(chart("Loss", line("a", [1.0, 2.0]))).count(
        "dasharray"
    )
    bars = [{**line(name, [1.0, 2.0]), "x": ["0.0 to 0.5", "0.5 to 1.0"]} for name in "ab"]
    assert "<pattern" in draw_chart(chart("Loss by time", *bars, kind="bars"))


def test_bars_leave_out_what_was_not_measured() -> None:
    bar = {"name": "first", "x": ["0.0", "0.1"], "y": [0.1, None], "faint": []}
    ET.fromstring(draw_chart(chart("Loss by time", bar, kind="bars")))
    assert table_of_bin_series([bar])["rows"][1] == {"name": "0.1", "values": [None]}


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=20))
def test_what_is_rounded_is_json_of_six_figures(values: list[float]) -> None:
    for before, after in zip(values, round_series(values), strict=True):
        assert (after is None) == (not math.isfinite(before))
        if after is not None:
            assert after == pytest.approx(before, rel=1e-5)


def test_a_line_is_summed_up() -> None:
    assert table_of_line_series([line("a", [3.0, None, 1.0, 2.0])])["rows"][0]["values"] == [
        3.0,
        1.0,
        3.0,
        2.0,
    ]


def test_figures_in_words() -> None:
    share = {"mean": 0.7125, "low": 0.35625, "high": 0.856}
    assert format_estimate(share, "share") == "71.2 % (35.6 to 85.6)"
    assert format_estimate({"mean": 21.804, "low": None, "high": None}) == "21.8"
    assert (
        format_difference({"mean": -0.125, "low": -0.25, "high": 0.0}, "share")
        == "-12.5 points (-25.0 to +0.0)"
    )
    assert [
        format_fact(*each) for each in ((1234, "count"), (59.6, "seconds"), (3725, "seconds"), (2e6, "bytes"))
    ] == [
        "1,234",
        "1 min 0 s",
        "1 h 2 min",
        "2.0 MB",
    ]
    assert join_names(["a", "b", "c"]) == "a, b and c"
    assert join_names(["a"]) == "a"
