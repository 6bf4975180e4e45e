"""T2I-CompBench's spatial rule on boxes made by hand: every relation, the soft part, the floor."""

import pytest

from lavibridge.evaluation.benchmarks.boxes import Box
from lavibridge.evaluation.benchmarks.spatial import (
    SpatialRelation,
    read_spatial_relation,
    spatial_relation_score,
    spatial_score,
)

PLACES = {"left": (100, 200), "right": (300, 200), "top": (200, 100), "bottom": (200, 300)}
OPPOSITE = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}


def box(name: str, x: float, y: float, side: float = 40, score: float = 0.8) -> Box:
    half = side / 2
    return Box(name=name, score=float(score), left=x - half, top=y - half, right=x + half, bottom=y + half)


@pytest.mark.parametrize("where", PLACES)
def test_one_side_is_right_and_the_other_three_are_not(where):
    middle = box("b", 200, 200)
    for place, (x, y) in PLACES.items():
        assert spatial_relation_score(where, box("a", x, y), middle) == float(place == where)
    assert spatial_relation_score(OPPOSITE[where], middle, box("a", *PLACES[where])) == 1
    assert spatial_relation_score(where, middle, middle) == 0


@pytest.mark.parametrize("where", PLACES)
def test_diagonals_count_for_the_longer_side_only(where):
    x, y = PLACES[where]
    aside = (x, y + 99) if where in ("left", "right") else (x + 99, y)
    beyond = (x, y + 101) if where in ("left", "right") else (x + 101, y)
    assert spatial_relation_score(where, box("a", *aside), box("b", 200, 200)) == 1
    assert spatial_relation_score(where, box("a", *beyond), box("b", 200, 200)) == 0


def test_boxes_that_share_much_count_less():
    # 100 wide, 50 apart: a third is shared, so 0.1 / (1/3).
    assert spatial_relation_score("left", box("a", 100, 100, 100), box("b", 150, 100, 100)) == pytest.approx(
        0.3
    )
    # 100 wide, 90 apart: 10 of 190 are shared, which is below a tenth.
    assert spatial_relation_score("left", box("a", 100, 100, 100), box("b", 190, 100, 100)) == 1


def test_near_is_150_pixels_either_way():
    here = box("a", 0, 0)
    assert spatial_relation_score("near", here, box("b", 400, 149)) == 1
    assert spatial_relation_score("near", here, box("b", 149, 400)) == 1
    assert spatial_relation_score("near", here, box("b", 300, 200)) == pytest.approx(0.5)


def test_the_score_of_a_picture():
    left = SpatialRelation(first="cat", where="left", second="sofa")
    cat, sofa = box("cat", 100, 200, score=0.6), box("sofa", 300, 200, score=0.4)
    assert spatial_score(left, [cat, sofa], 480, 480) == pytest.approx(0.25 * 0.6 + 0.25 * 0.4 + 0.5)
    assert spatial_score(left, [sofa], 480, 480) == 0
    assert spatial_score(left, [], 480, 480) == 0
    # On the wrong side only the confidences are left: below the floor of one half.
    wrong = SpatialRelation(first="sofa", where="left", second="cat")
    assert spatial_score(wrong, [cat, sofa], 480, 480) == 0
    # The surest of each name is the one that counts.
    assert spatial_score(left, [cat, sofa, box("cat", 400, 200, score=0.5)], 480, 480) > 0
    assert spatial_score(left, [cat, sofa, box("cat", 400, 200, score=0.7)], 480, 480) == 0


def test_distances_are_those_of_the_published_input_size():
    near = SpatialRelation(first="a", where="near", second="b")
    apart = [box("a", 100, 100, score=0), box("b", 400, 400, score=0)]
    assert spatial_score(near, apart, 960, 960) == 0.5  # 300 pixels of 960 are 150 of 479
    assert spatial_score(near, apart, 479, 479) == 0  # 150 / 300, halved: below the floor


def test_one_thing_does_not_stand_for_two():
    twice = SpatialRelation(first="cat", where="near", second="cat")
    assert spatial_score(twice, [box("cat", 100, 100)], 480, 480) == 0
    assert spatial_score(twice, [box("cat", 100, 100), box("cat", 200, 100)], 480, 480) > 0.5


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a giraffe next to a lamp", ("giraffe", "near", "lamp")),
        ("a mouse on side of a key", ("mouse", "near", "key")),
        ("a pig near a clock", ("pig", "near", "clock")),
        ("a bee on the right of a refrigerator", ("bee", "right", "refrigerator")),
        ("a girl on the top of a frog", ("girl", "top", "frog")),
        ("a bicycle on the bottom of a chicken", ("bicycle", "bottom", "chicken")),
        ("The fluffy cat is on the left of the soft pillow.", ("cat", "left", "pillow")),
        ("The red hat was on top of the brown coat rack.", ("hat", "top", "coat rack")),
        ("The striped black and white cat lay next to the soft grey blanket.", ("cat", "near", "blanket")),
    ],
)
def test_relations_are_read(prompt, expected):
    found = read_spatial_relation(prompt)
    assert found is not None
    assert (found.first, found.where, found.second) == expected


@pytest.mark.parametrize(
    "prompt", ["a cat", "nearby cats", "near a cat", "a cat on the left of", "😀, / \n", ""]
)
def test_what_states_no_relation(prompt):
    assert read_spatial_relation(prompt) is None
