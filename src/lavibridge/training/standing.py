"""Whether what a finished run stands on is still what it was: its data and both of its models, by content."""

from pathlib import Path

from lavibridge.core.files import read_json
from lavibridge.data.base import open_dataset
from lavibridge.data.pictures.rejected import Rejected
from lavibridge.recipes.recipe import Recipe
from lavibridge.recipes.sections import kind_of
from lavibridge.training.checkpoint import STATE, checkpoints
from lavibridge.training.held_out import hold_out
from lavibridge.training.run_fingerprint import basis, differences


def moved(run: Path, recipe: Recipe) -> list[str]:
    """What a run's newest checkpoint knew otherwise than it is now, a sentence each.

    LaviError where data or models are no longer there to be compared.
    """
    kept = read_json(checkpoints(run)[-1] / STATE)["basis"]
    pictures = open_dataset(kind_of(recipe.data), recipe.data, Rejected())
    dataset, _ = hold_out(pictures, recipe.training.validation)
    return differences(kept, basis(recipe, dataset, int(kept["processes"])))
