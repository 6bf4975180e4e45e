"""Prompts in the world's words are read as they were meant, and no others are."""

import pytest
from PIL import Image

from lavibridge.world.captions import CATEGORIES, sample_captioned_scene
from lavibridge.world.drawing import draw_scene
from lavibridge.world.prompt_parser import check_prompt, parse_prompt
from lavibridge.world.scene import SceneGroup, SceneRelation, SceneSpec


@pytest.mark.parametrize("category", CATEGORIES)
def test_every_caption_of_the_world_is_read_as_its_spec(category: str) -> None:
    for index in range(100):
        pair = sample_captioned_scene(3, index, category=category, split="test")
        assert parse_prompt(pair.caption) == pair.spec, pair.caption


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "a cat",
        "a red circle and a cat",
        "a red",
        "red",
        "a red blue circle",
        "a very red circle",
        "and",
        "no",
    ],
)
def test_what_is_not_understood_has_no_verdict(prompt: str) -> None:
    assert parse_prompt(prompt) is None


def test_capitals_commas_and_a_full_stop_do_no_harm() -> None:
    assert parse_prompt("A small, striped red circle left of a blue square.") == SceneSpec(
        groups=(
            SceneGroup(shape="circle", color="red", texture="striped", size="small"),
            SceneGroup(shape="square", color="blue"),
        ),
        relation=SceneRelation(name="left of", subject=0, object=1),
    )


def test_a_true_picture_keeps_every_promise_and_another_breaks_some() -> None:
    pair, other = (sample_captioned_scene(1, index, category="one", split="test") for index in (0, 1))
    verdict = check_prompt(pair.caption, Image.fromarray(draw_scene(pair.scene)))
    assert verdict is not None
    assert all(clause["holds"] for clause in verdict.values())
    wrong = check_prompt(pair.caption, Image.fromarray(draw_scene(other.scene)))
    assert wrong is not None
    assert not all(clause["holds"] for clause in wrong.values())
    assert check_prompt("a cat", Image.fromarray(draw_scene(pair.scene))) is None
