"""The recipe of an alignment without training: captions in place of pictures, and no step after it."""

from pathlib import Path
from typing import Any

import torch

from lavibridge.bridge.choices import model_of_choice
from lavibridge.bridge.saved_bridge import SavedBridge, locate_saved_bridge, read_saved_bridge
from lavibridge.core.config import validate_config
from lavibridge.core.errors import LaviError, RecipeError
from lavibridge.language.base import LanguageModel
from lavibridge.lora import LoraSettings
from lavibridge.recipes.recipe import Recipe
from lavibridge.recipes.sections import read_section
from lavibridge.recipes.training_section import AlignmentSection


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
    settings = recipe.training.align or AlignmentSection()
    changes: dict[str, Any] = {}
    if captions is not None:
        changes["data"] = read_section("data", {"kind": "captions", "path": str(captions)})
    if language is not None:
        changes["language"] = read_section("language", language)
    if teacher is not None:
        settings = settings.model_copy(update={"teacher": teacher})
        saved = _saved(teacher)
        changes["lora"] = recipe.lora.model_copy(update={"vision": _vision_lora(saved)})
        if translate:
            changes["connector"] = _translator(saved)
    elif translate:
        raise RecipeError("--translate keeps the connector of a trained bridge: name the bridge with --from")
    validation = recipe.training.validation if captions is None else None
    changes["training"] = recipe.training.model_copy(
        update={"steps": 0, "align": settings, "teacher": None, "validation": validation}
    )
    return recipe.model_copy(update=changes)


def _saved(teacher: str) -> SavedBridge:
    try:
        return read_saved_bridge(locate_saved_bridge(teacher))
    except LaviError as error:
        raise RecipeError(f"--from {teacher}: {error}") from error


def _vision_lora(teacher: SavedBridge) -> LoraSettings | None:
    lora = teacher.vision_lora
    return None if lora is None else validate_config(LoraSettings, lora, "lora.vision")


def _translator(teacher: SavedBridge) -> Any:
    """Return the section of a translator in front of the teacher's connector."""
    language: LanguageModel = model_of_choice("language", teacher.language, torch.device("meta"))
    section = {"kind": "translator", "width": language.spec.width, "then": dict(teacher.connector)}
    return read_section("connector", section)
