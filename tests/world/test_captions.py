"""Prompts of the world: true by construction, always the same, and free of what is withheld."""

from functools import cache

import numpy as np
import pytest

from lavibridge.world.captions import (
    CATEGORIES,
    TRAINING_MIX,
    CaptionedScene,
    evaluation_prompts,
    sample_captioned_scene,
)
from lavibridge.world.drawing import draw_mask, draw_placed_mask, draw_scene
from lavibridge.world.layout import is_clear_direction
from lavibridge.world.scene import COLORS, DIRECTIONS, GROUND, SHAPES, SIZES, WHITE, WITHHELD, matches_group
from lavibridge.world.words import SYNONYMS


@cache
def training_scenes() -> tuple[CaptionedScene, ...]:
    return tuple(sample_captioned_scene(0, index) for index in range(2000))


def test_the_training_mix_is_a_distribution() -> None:
    assert sum(TRAINING_MIX.values()) == pytest.approx(1)


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_scene_keeps_its_spec(category: str) -> None:
    for pair in evaluation_prompts(category, 40):
        things = list(pair.scene.things)
        assert len(things) == sum(group.count for group in pair.spec.groups)
        for group in pair.spec.groups:
            assert sum(matches_group(thing, group) for thing in things) >= group.count
        for group in pair.spec.absent:
            assert not any(matches_group(thing, group) for thing in things)


def test_a_pair_is_named_by_seed_and_index() -> None:
    assert sample_captioned_scene(3, 5) == sample_captioned_scene(3, 5)
    assert sample_captioned_scene(3, 5) != sample_captioned_scene(3, 6)
    assert sample_captioned_scene(3, 5, category="one") != sample_captioned_scene(
        3, 5, category="one", split="test"
    )


def test_evaluation_prompts_are_different_from_each_other_and_stable() -> None:
    found = evaluation_prompts("two", 100)
    assert len({pair.caption for pair in found}) == 100
    assert found[:50] == evaluation_prompts("two", 50)


def test_withheld_pairs_stay_out_of_training() -> None:
    for pair in training_scenes():
        assert not any((thing.color, thing.shape) in WITHHELD for thing in pair.scene.things)
    for pair in evaluation_prompts("unseen-pairs", 50):
        assert any((thing.color, thing.shape) in WITHHELD for thing in pair.scene.things)


def test_synonyms_stay_out_of_captions_and_fill_unseen_words() -> None:
    synonyms = {other for others in SYNONYMS.values() for other in others} - {"plain"}  # `plain` grey ground
    for pair in training_scenes()[:1000]:
        assert not synonyms & set(pair.caption.split())
    plain = set(COLORS) | set(SHAPES)
    for pair in evaluation_prompts("unseen-words", 60):
        assert not plain & set(pair.caption.split())


def test_directions_in_scenes_are_beyond_doubt() -> None:
    for pair in evaluation_prompts("spatial", 60):
        relation = pair.spec.relation
        assert relation is not None
        assert relation.name in DIRECTIONS
        first, second = pair.scene.things[relation.subject], pair.scene.things[relation.object]
        assert is_clear_direction(np.array(first.center), np.array(second.center), relation.name)


def test_things_keep_apart_unless_they_interact() -> None:
    for pair in evaluation_prompts("complex", 30):
        total = sum(draw_placed_mask(thing).astype(int) for thing in pair.scene.things)
        assert int(np.max(total)) == 1


def test_drawing_paints_things_and_leaves_the_ground() -> None:
    for pair in evaluation_prompts("one", 20):
        picture = draw_scene(pair.scene)
        (thing,) = pair.scene.things
        assert picture.shape == (64, 64, 3)
        assert (picture[0] == GROUND).all()
        inside = picture[draw_placed_mask(thing)].astype(int)
        own, white = (
            np.abs(inside - np.array(tone)).max(axis=1) < 8 for tone in (COLORS[thing.color], WHITE)
        )
        assert (own | white).mean() > 0.7
        assert own.any()


@pytest.mark.parametrize("side", SIZES.values())
def test_shapes_differ_from_each_other(side: int) -> None:
    for i, a in enumerate(SHAPES):
        for b in SHAPES[:i]:
            joined = (draw_mask(a, side) | draw_mask(b, side)).sum()
            assert (draw_mask(a, side) & draw_mask(b, side)).sum() / joined < 0.85


def test_an_unknown_category_is_named() -> None:
    with pytest.raises(ValueError, match="no category 'three'"):
        evaluation_prompts("three", 1)
