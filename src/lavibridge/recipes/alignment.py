"""The recipe of an alignment without training: captions in place of pictures, and no step after it."""

from pathlib import Path
from typing import Any

import torch

from lavibridge.bridge import store
from lavibridge.bridge.choices import component
from lavibridge.core.config import validate
from lavibridge.core.errors import LaviError, RecipeError
from lavibridge.language.base import LanguageModel
from lavibridge.lora import LoraSettings
from lavibridge.recipes.recipe import Recipe
from lavibridge.recipes.sections import read_section
from lavibridge.recipes.training import Alignment


def alignment_recipe(
    recipe: Recipe,
    captions: Path | None = None,
    language: str | None = None,
    teacher: str | None = None,
    translate: bool = False,
) -> Recipe:
    """Return a recipe that ends after its alignment.

    ``captions`` is a text file that replaces the data, ``language`` a source that replaces the language
    model, ``teacher`` a bridge to learn from. A teacher with LoRA in its vision model gives the student the
    same. With ``translate`` the teacher's connector stays, and a translation of the language model's features
    is learned in front of it. Raises RecipeError for a file or a bridge that is not there.
    """
    settings = recipe.training.align or Alignment()
    changes: dict[str, Any] = {}
    if captions is not None:
        changes["data"] = read_section("data", {"kind": "captions", "path": str(captions)})
    if language is not None:
        changes["language"] = read_section("language", language)
    if teacher is not None:
        settings = settings.model_copy(update={"teacher": teacher})
        stored = _stored(teacher)
        changes["lora"] = recipe.lora.model_copy(update={"vision": _vision_lora(stored)})
        if translate:
            changes["connector"] = _translator(stored)
    elif translate:
        raise RecipeError("--translate keeps the connector of a trained bridge: name the bridge with --from")
    validation = recipe.training.validation if captions is None else None
    changes["training"] = recipe.training.model_copy(
        update={"steps": 0, "align": settings, "teacher": None, "validation": validation}
    )
    return recipe.model_copy(update=changes)


def _stored(teacher: str) -> store.Stored:
    try:
        return store.read(store.locate(teacher))
    except LaviError as error:
        raise RecipeError(f"--from {teacher}: {error}") from error


def _vision_lora(teacher: store.Stored) -> LoraSettings | None:
    lora = teacher.vision_lora
    return None if lora is None else validate(LoraSettings, lora, "lora.vision")


def _translator(teacher: store.Stored) -> Any:
    """Return the section of a translator in front of the teacher's connector."""
    language: LanguageModel = component("language", teacher.language, torch.device("meta"))
    section = {"kind": "translator", "width": language.spec.width, "then": dict(teacher.connector)}
    return read_section("connector", section)
