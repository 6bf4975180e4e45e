"""The recipe of an alignment without training: captions in place of pictures, and no step after it."""

from pathlib import Path
from typing import Any

from lavibridge.bridge import saved_bridge
from lavibridge.core.config import validate
from lavibridge.core.errors import LaviError, RecipeError
from lavibridge.lora import LoraSettings
from lavibridge.recipes.recipe import Recipe
from lavibridge.recipes.sections import read_section
from lavibridge.recipes.training_section import AlignmentSection


def alignment_recipe(
    recipe: Recipe,
    captions: Path | None = None,
    language: str | None = None,
    teacher: str | None = None,
) -> Recipe:
    """Return a recipe that ends after its alignment.

    ``captions`` is a text file that replaces the data, ``language`` a source that replaces the language
    model, ``teacher`` a bridge to learn from. A teacher with LoRA in its vision model gives the student the
    same. Raises RecipeError for a file or a bridge that is not there.
    """
    settings = recipe.training.align or AlignmentSection()
    changes: dict[str, Any] = {}
    if captions is not None:
        changes["data"] = read_section("data", {"kind": "captions", "path": str(captions)})
    if language is not None:
        changes["language"] = read_section("language", language)
    if teacher is not None:
        settings = settings.model_copy(update={"teacher": teacher})
        changes["lora"] = recipe.lora.model_copy(update={"vision": _vision_lora(teacher)})
    validation = recipe.training.validation if captions is None else None
    changes["training"] = recipe.training.model_copy(
        update={"steps": 0, "align": settings, "teacher": None, "validation": validation}
    )
    return recipe.model_copy(update=changes)


def _vision_lora(teacher: str) -> LoraSettings | None:
    try:
        stored = saved_bridge.read_saved_bridge(saved_bridge.locate_saved_bridge(teacher)).vision_lora
    except LaviError as error:
        raise RecipeError(f"--from {teacher}: {error}") from error
    return None if stored is None else validate(LoraSettings, stored, "lora.vision")
