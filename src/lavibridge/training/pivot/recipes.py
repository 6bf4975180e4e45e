"""Makes the recipe of each stage: the recipe of the first pair, with one model replaced."""

import json
from collections.abc import Sequence
from pathlib import Path

from lavibridge.connectors.pivot import Pivot
from lavibridge.core.errors import RecipeError, RunError
from lavibridge.pivot.folder import HALF, RECIPE, PivotFolder, Side
from lavibridge.recipes.recipe import Recipe, load_recipe
from lavibridge.recipes.sections import kind_of_section
from lavibridge.recipes.training_section import AlignmentSection, LoraSection


def first_recipe(name: str, settings: Sequence[str], captions: Path | None) -> Recipe:
    """Load the recipe of a first pair. Raises RecipeError if its connector is not a pivot."""
    recipe = load_recipe(name, [*settings, *_captions(captions)])
    if kind_of_section(recipe.connector) != "pivot":
        raise RecipeError(
            f"a pivot needs the connector 'pivot', but that of '{name}' is "
            f"'{kind_of_section(recipe.connector)}': add connector.kind=pivot"
        )
    return _aligned_only(recipe)


def added_recipe(
    pivot: PivotFolder, side: Side, source: str, settings: Sequence[str], captions: Path | None
) -> Recipe:
    """Return the recipe for a further model: the pivot's own recipe with this model.

    A language model or an image encoder gets the default read-out, not that of the first pair. A recipe has
    no field for an image encoder. Raises RecipeError if ``settings`` change the space of the pivot.
    """
    model = [] if side == "image_encoder" else [f"{side}={json.dumps({'source': source})}"]
    read = [] if side == "vision" else ["connector.read=null"]
    changes = [*model, *read, "training.start=null", *settings, *_captions(captions)]
    recipe = load_recipe(pivot.folder / RECIPE, changes)
    config = connector_config(recipe)
    for option, expected in (("slots", pivot.description.slots), ("width", pivot.description.width)):
        found = getattr(config, option)
        if found != expected:
            raise RecipeError(
                f"connector.{option} is {found}, but every half of {pivot.folder} must have {expected}: "
                "leave it out"
            )
    return _aligned_only(recipe)


def connector_config(recipe: Recipe) -> Pivot.Config:
    """Return the options of a recipe's pivot connector."""
    return Pivot.Config.model_validate(recipe.connector.model_dump(exclude={"kind"}))


def alignment_of(recipe: Recipe) -> AlignmentSection:
    """Return the settings of the alignment, which every recipe of a pivot has."""
    assert recipe.training.align is not None  # _aligned_only ensures it
    return recipe.training.align


def new_place(pivot: PivotFolder, side: Side, name: str) -> Path:
    """Return the folder of a new half. Raises RecipeError for a bad name, RunError if the half exists."""
    if Path(name).name != name or name.startswith("."):
        raise RecipeError(f"--name must be the name of a folder, found {name!r}: choose another")
    place = pivot.place(side, name)
    if (place / HALF).is_file():
        raise RunError(f"{place} exists already: choose another --name, or remove it to train it again")
    return place


def name_of(source: str) -> str:
    """Return the name of a half: the last part of its model's source."""
    return Path(source).name


def _captions(captions: Path | None) -> list[str]:
    return [] if captions is None else [f"data={json.dumps({'kind': 'captions', 'path': str(captions)})}"]


def _aligned_only(recipe: Recipe) -> Recipe:
    """Return a recipe without LoRA and without steps after the alignment."""
    training = recipe.training.model_copy(
        update={
            "steps": 0,
            "align": recipe.training.align or AlignmentSection(),
            "teacher": None,
            "validation": None,
            "preview_every": 0,
        }
    )
    lora = LoraSection(language=None, vision=None)
    return recipe.model_copy(update={"training": training, "lora": lora})
