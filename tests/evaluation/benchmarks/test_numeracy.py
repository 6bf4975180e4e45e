"""T2I-CompBench++'s numeracy: numbers are read before things of the list, duplicates are counted once."""

import pytest

from lavibridge.evaluation.benchmarks.boxes import Box
from lavibridge.evaluation.benchmarks.numeracy import (
    ObjectCounts,
    numeracy_score,
    read_numeracy_counts,
    read_numeracy_objects,
)

THINGS = read_numeracy_objects(
    "knife - knives\nmouse - mice\nfish - fish\nperson - people\npen - pens\ntraffic light - traffic lights\n"
)


def cats(count: int, name: str = "cat") -> list[Box]:
    return [
        Box(name=name, score=0.9, left=i * 10.0, top=0.0, right=i * 10.0 + 8, bottom=8.0)
        for i in range(count)
    ]


@pytest.mark.parametrize(
    ("prompt", "things"),
    [
        ("five knives", {"knife": 5}),
        ("two fish and one fish", {"fish": 3}),
        ("four people, one mouse and three pens", {"person": 4, "mouse": 1, "pen": 3}),
        ("A knife, and an apple were on the counter", {"knife": 1}),
        ("two traffic lights by seven mice", {"traffic light": 2, "mouse": 7}),
        ("knives in the kitchen", {}),
        ("two 😀, 3/4\nknives", {}),
    ],
)
def test_counts_are_read(prompt, things):
    assert read_numeracy_counts(prompt, THINGS).things == things


def test_half_for_being_there_and_half_for_the_number():
    three = ObjectCounts(things={"cat": 3})
    assert numeracy_score(three, []) == (0, {"cat": 0})
    assert numeracy_score(three, cats(2)) == (0.5, {"cat": 2})
    assert numeracy_score(three, cats(3)) == (1, {"cat": 3})
    assert numeracy_score(three, cats(4)) == (0.5, {"cat": 4})
    both = ObjectCounts(things={"cat": 1, "dog": 2})
    assert numeracy_score(both, [*cats(1), *cats(1, "dog")])[0] == pytest.approx((1 + 0.5) / 2)


def test_what_shows_the_same_thing_again_does_not_count():
    again = [Box(name="cat", score=0.5, left=0.1, top=0.0, right=8.0, bottom=8.0)]
    assert numeracy_score(ObjectCounts(things={"cat": 3}), [*cats(3), *again])[0] == 1


def test_the_list_of_things_names_its_bad_line():
    with pytest.raises(ValueError, match="line 2 should read"):
        read_numeracy_objects("knife - knives\nmouse\n")
