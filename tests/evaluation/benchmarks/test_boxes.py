"""Boxes: overlaps are symmetric, bounded and do not care for scale; duplicates go, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavibridge.evaluation.benchmarks.boxes import (
    Box,
    box_overlap,
    intersection_over_union,
    scale_box,
    sort_boxes_by_score,
    without_duplicate_boxes,
)

numbers = st.floats(0, 100, allow_nan=False).map(lambda value: round(value, 2))


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    left, top = draw(numbers), draw(numbers)
    return Box(
        name=draw(st.sampled_from(["cat", "dog"])),
        score=draw(st.floats(0, 1)),
        left=left,
        top=top,
        right=left + draw(st.floats(1, 50)),
        bottom=top + draw(st.floats(1, 50)),
    )


def box(name: str, left: float, top: float, right: float, bottom: float, score: float = 0.9) -> Box:
    corners = dict(
        zip(("left", "top", "right", "bottom"), map(float, (left, top, right, bottom)), strict=True)
    )
    return Box(name=name, score=score, **corners)


@given(boxes(), boxes(), st.floats(0.1, 10))
def test_overlap(a, b, factor):
    shared = intersection_over_union(a, b)
    assert shared == pytest.approx(intersection_over_union(b, a))
    assert 0 <= shared <= 1 + 1e-9
    assert intersection_over_union(a, a) == pytest.approx(1)
    assert intersection_over_union(scale_box(a, factor), scale_box(b, factor)) == pytest.approx(
        shared, abs=1e-6
    )
    assert box_overlap(a, b) <= min(a.area, b.area) + 1e-6


def test_overlap_by_hand():
    assert intersection_over_union(box("a", 0, 0, 10, 10), box("b", 5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert intersection_over_union(box("a", 0, 0, 10, 10), box("b", 10, 0, 20, 10)) == 0
    assert intersection_over_union(box("a", 3, 3, 3, 3), box("b", 3, 3, 3, 3)) == 0


@given(st.lists(boxes(), max_size=8))
def test_duplicates_keep_the_surest_of_each(found):
    kept = without_duplicate_boxes(found)
    assert without_duplicate_boxes(kept) == kept
    assert kept == [each for each in sort_boxes_by_score(found) if any(each is other for other in kept)]
    assert {each.name for each in kept} == {each.name for each in found}


def test_duplicates_by_hand():
    cat = box("cat", 0, 0, 100, 100, 0.9)
    again = box("cat", 0, 0, 100, 96, 0.8)
    inside = box("cat", 10, 10, 20, 20, 0.7)
    beside = box("cat", 50, 0, 150, 100, 0.6)
    dog = box("dog", 0, 0, 100, 100, 0.5)
    assert without_duplicate_boxes([dog, beside, inside, again, cat]) == [cat, beside, dog]
