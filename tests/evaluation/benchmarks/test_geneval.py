"""GenEval's rules on boxes made by hand: numbers, colours, positions with their dead zone, exclusions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavibridge.evaluation.benchmarks.boxes import Box
from lavibridge.evaluation.benchmarks.geneval import (
    GENEVAL_PLACES,
    check_geneval_requirements,
    geneval_positions,
    read_geneval_requirements,
)

OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


def box(name: str, x: float, y: float, side: float = 10, score: float = 0.9) -> Box:
    half = side / 2
    return Box(name=name, score=score, left=x - half, top=y - half, right=x + half, bottom=y + half)


def no_colors(boxes, name):
    raise AssertionError("no colour was asked for")


def test_places_by_hand():
    middle = box("b", 100, 100)
    assert geneval_positions(box("a", 50, 100), middle) == {"left of"}
    assert geneval_positions(box("a", 150, 100), middle) == {"right of"}
    assert geneval_positions(box("a", 100, 50), middle) == {"above"}
    assert geneval_positions(box("a", 100, 150), middle) == {"below"}
    assert geneval_positions(box("a", 150, 150), middle) == {"right of", "below"}
    assert geneval_positions(middle, middle) == set()


def test_a_tenth_of_both_sizes_is_no_place():
    # Sizes 100 and 100: the first 20 pixels count for nothing; 41 leave 21, over half of 41; 39 leave 19.
    assert geneval_positions(box("a", 119, 100, 100), box("b", 100, 100, 100)) == set()
    assert geneval_positions(box("a", 139, 100, 100), box("b", 100, 100, 100)) == set()
    assert geneval_positions(box("a", 141, 100, 100), box("b", 100, 100, 100)) == {"right of"}


coordinates = st.floats(0, 500)


@given(coordinates, coordinates, coordinates, coordinates, st.floats(1, 100), st.floats(1, 100))
def test_places_turn_round(ax, ay, bx, by, first, second):
    a, b = box("a", ax, ay, first), box("b", bx, by, second)
    assert {OPPOSITE[place] for place in geneval_positions(a, b)} == geneval_positions(b, a)


@pytest.mark.parametrize(("found", "right"), [(2, False), (3, True), (4, False)])
def test_counting(found, right):
    required = read_geneval_requirements(
        {
            "tag": "counting",
            "include": [{"class": "cup", "count": 3}],
            "exclude": [{"class": "cup", "count": 4}],
            "prompt": "a photo of three cups",
        }
    )
    assert required.is_counting
    holds, wrong = check_geneval_requirements(
        required, [box("cup", 20 * i, 0) for i in range(found)], no_colors
    )
    assert all(holds.values()) is right
    assert bool(wrong) is not right


def test_colors_are_those_of_the_surest():
    record = {
        "tag": "color_attr",
        "include": [{"class": "dog", "count": 1, "color": "brown"}, {"class": "cat", "count": 1}],
    }
    asked: list[float] = []

    def classify(boxes, name):
        asked.extend(each.score for each in boxes)
        return ["brown" if each.score > 0.8 else "red" for each in boxes]

    boxes = [box("dog", 0, 0, score=0.5), box("dog", 50, 0, score=0.9), box("cat", 90, 0)]
    assert check_geneval_requirements(read_geneval_requirements(record), boxes, classify) == (
        {"there": True, "color": True},
        [],
    )
    assert asked == [0.9]
    holds, wrong = check_geneval_requirements(
        read_geneval_requirements(record), [boxes[0], boxes[2]], classify
    )
    assert holds == {"there": True, "color": False}
    assert "found red" in wrong[0]


@pytest.mark.parametrize("place", GENEVAL_PLACES)
def test_position(place):
    record = {
        "tag": "position",
        "include": [{"class": "couch", "count": 1}, {"class": "cat", "count": 1, "position": [place, 0]}],
    }
    required = read_geneval_requirements(record)
    x, y = {"left of": (0, 100), "right of": (200, 100), "above": (100, 0), "below": (100, 200)}[place]
    couch = box("couch", 100, 100)
    assert check_geneval_requirements(required, [couch, box("cat", x, y)], no_colors)[0] == {
        "there": True,
        "place": True,
    }
    wrong_side = box("cat", 200 - x, 200 - y)
    assert check_geneval_requirements(required, [couch, wrong_side], no_colors)[0] == {
        "there": True,
        "place": False,
    }
    no_target = check_geneval_requirements(required, [box("cat", x, y)], no_colors)[0]
    assert no_target == {"there": False, "place": False}


@pytest.mark.parametrize(
    "include",
    [
        [],
        [{"class": "", "count": 1}],
        [{"class": "cat", "count": 0}],
        [{"class": "cat", "count": 1, "color": "mauve"}],
        [{"class": "cat", "count": 1, "position": ["left of", 0]}],
        [{"class": "dog", "count": 1}, {"class": "cat", "count": 1, "position": ["beside", 0]}],
    ],
)
def test_what_cannot_be_asked_for(include):
    with pytest.raises(ValueError, match=r"include|class|color|position"):
        read_geneval_requirements({"tag": "position", "include": include})
