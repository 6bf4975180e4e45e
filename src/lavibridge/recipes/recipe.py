"""A recipe defines a run; it is validated as a whole before anything is loaded.

    recipe = load_recipe("mini-llama_mini-sd_lavi", ["training.steps=200"])

A recipe is self-contained: it inherits nothing, and the `recipe.yaml` that a run writes into its folder
reproduces the run.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, SerializeAsAny
from pydantic.fields import FieldInfo

from lavibridge.core import registry
from lavibridge.core.config import CHANGEABLE, Changeable, Config, validate_config
from lavibridge.core.errors import RecipeError
from lavibridge.data.base import Dataset
from lavibridge.recipes.recipe_text import (
    annotated_types,
    change_recipe_text,
    find_recipe,
    read_recipe_yaml,
    shipped_recipes,
)
from lavibridge.recipes.sections import SECTION_PACKAGES, kind_of_section, read_section, section_type
from lavibridge.recipes.training_section import LoraSection, PreviewSection, TrainingSection

__all__ = ["Recipe", "dump_recipe", "load_recipe", "make_recipe", "shipped_recipes"]


class Recipe(Config):
    """Everything that defines a run. A section with a `kind` has that kind's own fields."""

    language: SerializeAsAny[Config]
    """The frozen language model, which reads the prompts."""
    vision: SerializeAsAny[Config]
    """The frozen vision model, which generates the images."""
    connector: SerializeAsAny[Config]
    """The trained part between the two."""
    lora: LoraSection = LoraSection()
    """Trained low-rank changes inside the two frozen models."""
    data: SerializeAsAny[Dataset.Config]
    """The images and captions of training."""
    training: TrainingSection
    """How long, how fast, how often."""
    preview: Changeable[PreviewSection] = PreviewSection()
    """The sample images generated during training."""


def make_recipe(mapping: Mapping[str, Any]) -> Recipe:
    """Validate a mapping as a recipe. Raises RecipeError naming every wrong key by its dotted path."""
    sections = {name: read_section(name, mapping[name]) for name in SECTION_PACKAGES if name in mapping}
    recipe = validate_config(Recipe, {**mapping, **sections}, "")
    _refuse_float16(recipe)
    return recipe


def _refuse_float16(recipe: Recipe) -> None:
    """Raise RecipeError if gradients would pass through a model in float16.

    Gradients below 6e-8 vanish in float16: at 512 x 512 a connector's gradient was wrong by 91 %, compared to
    1 % in bfloat16, at the same loss. A model without gradients may be in float16.
    """
    passes_gradients = (
        recipe.lora.language is not None
        or registry.load_kind("connectors", kind_of_section(recipe.connector)).has_queries
    )
    for name, section, is_passed in (
        ("vision", recipe.vision, True),
        ("language", recipe.language, passes_gradients),
    ):
        if is_passed and section.model_dump().get("dtype") == "float16":
            alternative = (
                " (or lora.language null, with a connector without queries)" if name == "language" else ""
            )
            raise RecipeError(
                f"{name}.dtype is float16, in which small gradients vanish and training silently goes wrong: "
                f"use bfloat16{alternative}; float16 is for generation"
            )


def _field_type(recipe: Mapping[str, Any], path: Sequence[str]) -> Any:
    """Return the type of the field at a path, given the mapping's kinds; None if there is no such field."""
    fields = _fields(recipe, path)
    return fields[-1].annotation if len(fields) == len(path) else None


def may_change_on_resume(recipe: Recipe, key: str) -> bool:
    """Whether the field at a dotted path may differ between the sessions of a run (`Changeable`)."""
    return any(CHANGEABLE in field.metadata for field in _fields(recipe.model_dump(), key.split(".")))


def _fields(recipe: Mapping[str, Any], path: Sequence[str]) -> list[FieldInfo]:
    """Return the fields along a path, up to the first unknown one."""
    found: list[FieldInfo] = []
    model: type[BaseModel] | None = Recipe
    for depth, key in enumerate(path):
        if depth == 1 and path[0] in SECTION_PACKAGES:
            model = section_type(path[0], recipe.get(path[0]))
        field = model.model_fields.get(key) if model is not None else None
        if field is None:
            break
        found.append(field)
        types = [each for each in annotated_types(field.annotation) if isinstance(each, type)]
        model = next((each for each in types if issubclass(each, BaseModel)), None)
    return found


def load_recipe(name: str | Path, settings: Sequence[str] = ()) -> Recipe:
    """Load a recipe by a shipped name or a path, with changes such as `training.steps=200`.

    Raises RecipeError naming every wrong key by its dotted path.
    """
    path = find_recipe(str(name))
    try:
        return make_recipe(change_recipe_text(read_recipe_yaml(path), settings, _field_type))
    except RecipeError as error:
        raise RecipeError(f"{path.name}: {error}") from error


def dump_recipe(recipe: Recipe) -> str:
    """Format a recipe as YAML with every field, kinds first."""
    content = recipe.model_dump(mode="json")
    for section, value in content.items():
        if "kind" in value:
            content[section] = {"kind": value["kind"], **value}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
