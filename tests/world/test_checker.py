"""The checker agrees with the drawer, survives small damage, notices single changes, and does not guess."""

import numpy as np
import pytest
from PIL import Image

from lavibridge.core.errors import DataError
from lavibridge.world.captions import CATEGORIES, CaptionedScene, sample_captioned_scene
from lavibridge.world.checker import CLAUSE_KINDS, check_picture
from lavibridge.world.detections import ParsedScene
from lavibridge.world.drawing import draw_scene
from lavibridge.world.perturbations import PERTURBATIONS, counterfactuals
from lavibridge.world.scene import GROUND, SHAPES, SIZES, Scene, SceneGroup, SceneRelation, SceneSpec, Thing
from lavibridge.world.scene_parser import parse_scene

BARS = {"clean": 0.995, "noise": 0.98, "blur": 0.98, "jpeg": 0.98, "shift": 0.98}


def pairs(count: int) -> list[CaptionedScene]:
    return [sample_captioned_scene(3, i, category=CATEGORIES[i % len(CATEGORIES)]) for i in range(count)]


def thing(shape: str, color: str, left: int, top: int, size: str = "small", texture: str = "solid") -> Thing:
    return Thing(shape=shape, color=color, texture=texture, size=size, left=left, top=top)


def sees_all(reading: ParsedScene, scene: Scene) -> bool:
    """Whether every thing was read with every attribute, within two pixels of its place."""
    free = list(reading.things)
    for wanted in scene.things:
        for seen in free:
            same = (seen.shape, seen.color, seen.texture, seen.size)
            near = max(abs(a - b) for a, b in zip(seen.center, wanted.center, strict=True)) <= 2
            if near and same == (wanted.shape, wanted.color, wanted.texture, wanted.size):
                free.remove(seen)
                break
        else:
            return False
    return not free and not reading.unreadable


def agreement(damage: str, count: int) -> float:
    right = 0
    for pair in pairs(count):
        verdict = check_picture(PERTURBATIONS[damage](draw_scene(pair.scene), pair.index), pair.spec)
        right += verdict.all and sees_all(verdict.parsed, pair.scene)
    return right / count


@pytest.mark.parametrize("damage", BARS)
def test_agrees_with_the_drawer(damage):
    assert agreement(damage, 65) >= BARS[damage]


@pytest.mark.slow
@pytest.mark.parametrize("damage", BARS)
def test_agrees_with_the_drawer_on_5000(damage):
    assert agreement(damage, 5000) >= BARS[damage]


@pytest.mark.parametrize("count", [26, pytest.param(260, marks=pytest.mark.slow)])
def test_single_changes_are_rejected(count):
    tried: dict[str, int] = {}
    for pair in pairs(count):
        for name, scene in counterfactuals(pair.scene, pair.spec):
            tried[name] = tried.get(name, 0) + 1
            assert not check_picture(draw_scene(scene), pair.spec).all, (name, pair.caption, scene)
    kinds = {"color", "shape", "texture", "size", "colors swapped", "removed", "one more", "flipped"}
    assert set(tried) == kinds
    assert min(tried.values()) >= 3, tried


def test_count_is_exact():
    stars = [thing("star", "green", left, top) for left, top in ((3, 3), (40, 5), (5, 40), (40, 40))]
    for there in range(1, 5):
        for wanted in range(2, 5):
            spec = SceneSpec(groups=(SceneGroup(shape="star", color="green", count=wanted),))
            verdict = check_picture(draw_scene(Scene(things=tuple(stars[:there]))), spec)
            assert verdict["count"] is (there == wanted)
            assert verdict.all is (there == wanted)


def test_clauses_are_python_bools_and_absent_ones_are_none():
    scene = Scene(things=(thing("circle", "red", 10, 10),))
    verdict = check_picture(draw_scene(scene), SceneSpec(groups=(SceneGroup(shape="circle", color="red"),)))
    assert {type(answer) for answer in verdict.clauses.values()} == {bool}
    assert type(verdict.all) is bool
    assert set(verdict.clauses) == {"objects", "shape", "color", "binding", "clean"} == set(verdict.reasons)
    assert [verdict[name] for name in ("texture", "size", "count", "relation", "place", "absence")] == [
        None
    ] * 6
    assert verdict.soft == 1.0
    with pytest.raises(KeyError):
        verdict["colour"]
    assert set(verdict.clauses) <= set(CLAUSE_KINDS)


def test_binding_is_not_presence():
    """A red square and a blue circle show every word of a red circle and a blue square, and fail."""
    spec = SceneSpec(
        groups=(SceneGroup(shape="circle", color="red"), SceneGroup(shape="square", color="blue"))
    )
    verdict = check_picture(
        draw_scene(Scene(things=(thing("square", "red", 5, 5), thing("circle", "blue", 40, 40)))), spec
    )
    assert verdict["color"] is True
    assert verdict["shape"] is True
    assert verdict["binding"] is False
    assert not verdict.all
    assert verdict.soft == 4 / 5


def test_place_and_absence():
    picture = draw_scene(Scene(things=(thing("circle", "red", 5, 5),)))
    for place, answer in (("left", True), ("right", False), ("top", True), ("bottom", False)):
        assert (
            check_picture(picture, SceneSpec(groups=(SceneGroup(shape="circle", place=place),)))["place"]
            is answer
        )
    for absent, answer in (
        (SceneGroup(shape="circle"), False),
        (SceneGroup(shape="ring"), True),
        (SceneGroup(color="red"), False),
    ):
        verdict = check_picture(picture, SceneSpec(groups=(SceneGroup(shape="circle"),), absent=(absent,)))
        assert verdict["absence"] is answer


@pytest.mark.parametrize("gap", [0, 1, 3, 4, 8])
def test_touching_is_within_two_pixels(gap):
    scene = Scene(things=(thing("square", "red", 10, 20), thing("circle", "blue", 28 + gap, 20)))
    groups = (SceneGroup(shape="square", color="red"), SceneGroup(shape="circle", color="blue"))
    verdict = check_picture(
        draw_scene(scene),
        SceneSpec(groups=groups, relation=SceneRelation(name="touching", subject=0, object=1)),
    )
    assert verdict["binding"] is True
    assert verdict["relation"] is (gap <= 1)


def test_in_front_of_knows_which_is_in_front():
    front, back = thing("circle", "red", 30, 30), thing("square", "blue", 10, 10, "large")
    groups = (SceneGroup(shape="circle", color="red"), SceneGroup(shape="square", color="blue"))
    forth = SceneSpec(groups=groups, relation=SceneRelation(name="in front of", subject=0, object=1))
    assert check_picture(draw_scene(Scene(things=(back, front))), forth).all
    assert check_picture(draw_scene(Scene(things=(front, back))), forth)["relation"] is False
    back_to = SceneSpec(groups=groups, relation=SceneRelation(name="in front of", subject=1, object=0))
    assert check_picture(draw_scene(Scene(things=(back, front))), back_to)["relation"] is False


def test_inside_needs_the_hole():
    ring, groups = (
        thing("ring", "blue", 8, 8, "huge"),
        (SceneGroup(shape="star", color="red"), SceneGroup(shape="ring")),
    )
    spec = SceneSpec(groups=groups, relation=SceneRelation(name="inside", subject=0, object=1))
    assert check_picture(draw_scene(Scene(things=(ring, thing("star", "red", 22, 22)))), spec).all
    assert not check_picture(
        draw_scene(Scene(things=(thing("ring", "blue", 2, 2, "large"), thing("star", "red", 42, 42)))), spec
    ).all


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", ["small", "large"])
def test_runs_together_or_cut_is_unreadable(shape, size):
    side = SIZES[size]
    two = draw_scene(
        Scene(things=(thing(shape, "red", 2, 2, size), thing(shape, "red", 2 + side // 2, 2, size)))
    )
    assert parse_scene(two).unreadable
    assert not check_picture(two, SceneSpec(groups=(SceneGroup(shape=shape, color="red", count=2),))).all
    whole = draw_scene(Scene(things=(thing(shape, "blue", 16, 16, size),)))
    other = draw_scene(Scene(things=(thing(shape, "red", 16, 16, size),)))
    half = 16 + side // 2
    for cut in (whole.copy(), whole.copy(), other):
        if cut is other:
            cut[:, half:] = whole[:, half:]
        else:
            cut[:, :half] = GROUND
        reading = parse_scene(cut)
        assert reading.unreadable
        assert not reading.things


def test_two_touching_alike_are_unreadable():
    for shape in ("circle", "square", "cross", "ring"):
        reading = parse_scene(
            draw_scene(Scene(things=(thing(shape, "red", 4, 20), thing(shape, "red", 22, 20))))
        )
        assert reading.unreadable
        assert not reading.things


def test_noise_and_mush_are_wrong_and_unreadable():
    rng = np.random.default_rng(0)
    spec = SceneSpec(groups=(SceneGroup(),))
    for _ in range(20):
        noise = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        grey = np.array(Image.fromarray(rng.integers(40, 210, (8, 8), dtype=np.uint8)).resize((64, 64), 3))
        mush = np.repeat(grey[..., None], 3, axis=2)
        for picture in (noise, mush):
            verdict = check_picture(picture, spec)
            assert verdict.parsed.unreadable
            assert verdict["clean"] is False
            assert not verdict.all


def test_an_empty_ground_is_readable_and_wrong():
    empty = draw_scene(Scene(things=()))
    assert parse_scene(empty) == ParsedScene(things=(), unreadable=())
    verdict = check_picture(
        empty, SceneSpec(groups=(SceneGroup(shape="ring"),), absent=(SceneGroup(shape="star"),))
    )
    assert verdict["objects"] is False
    assert verdict["absence"] is True
    assert not verdict.all


def test_pictures_of_other_sizes_are_refused():
    with pytest.raises(DataError, match="64 x 64"):
        parse_scene(np.zeros((32, 32, 3), dtype=np.uint8))
    assert parse_scene(Image.fromarray(draw_scene(Scene(things=())))) == ParsedScene(things=(), unreadable=())


def test_a_blotch_keeps_its_colour_and_nothing_else() -> None:
    picture = np.full((64, 64, 3), GROUND, dtype=np.uint8)
    picture[10:40, 10:20] = picture[30:40, 10:40] = (214, 44, 50)  # an L of red
    verdict = check_picture(picture, SceneSpec(groups=(SceneGroup(shape="circle", color="red"),)))
    assert verdict["color"] is True
    assert verdict["shape"] is False
    assert verdict["clean"] is False
    assert not verdict.all
    assert (
        check_picture(picture, SceneSpec(groups=(SceneGroup(shape="circle", color="blue"),)))["color"]
        is False
    )
