"""`lavi show` tells everything that can be set, and what it prints of a recipe is a recipe."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from lavibridge.cli.main import app
from lavibridge.cli.show import SHOWN_PACKAGES
from lavibridge.core.errors import RecipeError
from lavibridge.core.packaged import PACKAGED
from lavibridge.core.registry import kinds
from lavibridge.evaluation.shipped import shipped_suites
from lavibridge.recipes.recipe import load_recipe, shipped_recipes


def shown(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["show", *arguments])
    if done.exception is not None:
        raise done.exception
    assert done.exit_code == 0
    return done.stdout


def test_everything_that_can_be_combined_is_listed() -> None:
    text = shown()
    for room in SHOWN_PACKAGES.values():
        assert "  ".join(kinds(room)) in text
    for name in (*shipped_suites(), *PACKAGED):
        assert name in text
    for name in shipped_recipes():
        assert name in text


@pytest.mark.parametrize("name", ["quickstart", "mini-llama_mini-sd_lavi"])
def test_a_shown_recipe_is_the_recipe(name: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(shown(name))
    assert load_recipe(path) == load_recipe(name)


@pytest.mark.parametrize(
    "what",
    [f"{name.removesuffix('s')}.{kind}" for name, room in SHOWN_PACKAGES.items() for kind in kinds(room)],
)
def test_every_setting_of_every_component_says_what_it_means(what: str) -> None:
    lines = shown(what).splitlines()[2:]
    for place, line in enumerate(lines):
        if line and not line.startswith(" "):
            assert lines[place + 1].startswith("    "), f"{what}: {line} has no docstring"


def test_an_unknown_kind_is_answered_with_the_likely_one() -> None:
    with pytest.raises(RecipeError, match="did you mean 'lavi'"):
        shown("connector.lavy")


@pytest.mark.parametrize("pool", ["languages", "visions", "connectors", "data", "metrics", "prompts"])
def test_a_pool_is_shown_kind_by_kind(pool: str) -> None:
    room = SHOWN_PACKAGES[pool] if pool in SHOWN_PACKAGES else pool.removesuffix("s")
    first_words = {line.split(" ")[0] for line in shown(pool).splitlines()}
    assert set(kinds(room)) <= first_words
