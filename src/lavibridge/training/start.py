"""What a recipe and a look at the machine show before anything is loaded, and what a loaded bridge shows.

Whatever is wrong is found from the cheap to the dear, and before the run's folder is begun: a start that is
refused leaves nothing behind.
"""

import os
from importlib.util import find_spec
from pathlib import Path

from lavibridge.bridge import Bridge
from lavibridge.core.device import pick_device
from lavibridge.core.errors import RecipeError, RunError
from lavibridge.generation.checks import check_seeds, read_prompts
from lavibridge.generation.sample import check_steps
from lavibridge.recipes.places import check_places
from lavibridge.recipes.recipe import Recipe
from lavibridge.recipes.sections import component
from lavibridge.recipes.training import OPTIMIZERS
from lavibridge.training.distributed.sharding import check_sharding
from lavibridge.training.objectives.alignment import check_alignable
from lavibridge.training.objectives.native_encoder import check_native_encoder
from lavibridge.training.optim import check_rates
from lavibridge.training.reporting.trackers import check_trackers


def check_start(recipe: Recipe, out: Path | None) -> None:
    """LaviError for what cannot be begun here; `out` is the run's folder, where there is to be one."""
    check_sharding(recipe)
    check_trackers(recipe.training.trackers)
    check_extras(recipe)
    check_rates(recipe)
    if recipe.training.align is not None:
        check_alignable(recipe)
    if recipe.training.teacher is not None:
        check_native_encoder(recipe.vision, "training.teacher")
    pick_device(recipe.training.device)
    check_places(recipe, out)
    if out is not None:
        check_writable(out)


def check_extras(recipe: Recipe) -> None:
    """RecipeError where the recipe needs a package that is not installed."""
    component(OPTIMIZERS, recipe.training.optimizer).check_installed()
    for asked, package, extra in (
        (recipe.language.model_dump().get("quantize") is not None, "bitsandbytes", "quantize"),
        (recipe.training.attention == "flash", "flash_attn", ""),
    ):
        if asked and find_spec(package) is None:
            how = f"pip install 'lavibridge[{extra}]'" if extra else "pip install flash-attn"
            raise RecipeError(
                f"the recipe needs {package}, which is not installed: {how}, or leave out "
                "language.quantize and training.attention=flash"
            )


def check_writable(out: Path) -> None:
    """RunError where a folder cannot be made, or not be written to."""
    try:
        place = next(each for each in (out, *out.absolute().parents) if each.exists())
    except (OSError, ValueError) as error:  # a name that is too long, or holds a NUL byte
        raise RunError(f"--out cannot be a folder: {error}; choose another") from error
    if not place.is_dir():
        raise RunError(f"{out} cannot be a folder, as {place} is a file: choose another --out")
    if not os.access(place, os.W_OK | os.X_OK):
        raise RunError(f"{place} cannot be written to: choose another --out")


def check_bridge(recipe: Recipe, bridge: Bridge, prompts: tuple[str, ...]) -> None:
    """LaviError for what the recipe asks of a bridge that it cannot do, seen without a step."""
    side = recipe.data.model_dump().get("size") or bridge.vision.default_size
    bridge.vision.latent_shape(side, side)
    if recipe.training.preview_every:
        read_prompts(prompts)
        check_seeds([recipe.preview.seed])
        check_steps(recipe.preview.steps, len(bridge.vision.times), "preview.steps")
