"""The limit of prompts is resolved once, and what is saved states it as a number."""

import json
from pathlib import Path
from typing import Any

import pytest

from lavibridge import Bridge
from lavibridge.bridge.choices import model_of_choice
from lavibridge.core.errors import RecipeError
from lavibridge.recipes.recipe import dump_recipe, load_recipe, make_recipe
from lavibridge.recipes.sections import read_section

VISION = {"kind": "sd", "source": "random"}


def saved(folder: Path, language: Any) -> Path:
    Bridge.compose(language, VISION, "linear", None, None).save_pretrained(folder)
    return folder / "bridge.json"


def test_a_saved_bridge_states_its_limit(tmp_path: Path) -> None:
    path = saved(tmp_path, "mini-llama")
    assert json.loads(path.read_text())["language"]["max_tokens"] == 256
    assert Bridge.from_pretrained(tmp_path, "cpu").language.max_tokens == 256


@pytest.mark.parametrize(("source", "limit"), [("mini-llama", 77), ("mini-clip", 64)])
def test_a_bridge_that_says_null_keeps_what_null_meant(source: str, limit: int, tmp_path: Path) -> None:
    path = saved(tmp_path, source)
    content = json.loads(path.read_text())
    content["language"]["max_tokens"] = None
    path.write_text(json.dumps(content))
    assert Bridge.from_pretrained(tmp_path, "cpu").language.max_tokens == limit


def test_a_pair_states_the_limit_of_its_source_and_its_passthrough_keeps_77() -> None:
    options = {"kind": "pair", "source": "mini-llama", "passthrough": {"kind": "t5", "source": "random"}}
    pair = model_of_choice("language", options)
    assert (pair.config.max_tokens, pair.max_tokens, pair.other.max_tokens) == (256, 256, 77)


def test_a_recipe_states_the_limit_of_its_model(tmp_path: Path) -> None:
    def limit(**section: Any) -> Any:
        return read_section("language", section).model_dump()["max_tokens"]

    assert limit(source="mini-llama") == 256
    assert limit(source="mini-clip") == 64
    assert limit(source="mini-llama", max_tokens=20) == 20
    assert limit(source="mini-llama", see_padding=True) == 77
    assert limit(source="mini-llama", max_tokens=None) is None
    assert limit(kind="pair", source="mini-llama", passthrough="mini-clip") == 256
    assert limit(kind="t5", source=str(tmp_path)) == "auto", (
        "what cannot be read here is resolved where it is loaded"
    )
    recipe = load_recipe("quickstart", ["language={source: mini-llama}"])
    assert "max_tokens: 256" in dump_recipe(recipe)
    assert make_recipe(recipe.model_dump()) == recipe
    with pytest.raises(RecipeError, match=r"language\.max_tokens"):
        load_recipe("quickstart", ["language.max_tokens=1"])
