"""Checks a run before it starts: first the recipe and the machine, then the loaded bridge.

All checks precede the run's folder, so a start that fails leaves no files.
"""

import os
from importlib.util import find_spec
from pathlib import Path

from lavibridge.bridge import Bridge
from lavibridge.bridge.saved_bridge import saved_checkpoints
from lavibridge.core import registry
from lavibridge.core.device import pick_device
from lavibridge.core.errors import RecipeError, RunError
from lavibridge.data.mixture import Mixture, flatten_parts
from lavibridge.generation.checks import check_prompts, check_seeds
from lavibridge.generation.sampling import check_sampling_steps
from lavibridge.recipes.input_paths import check_input_paths
from lavibridge.recipes.recipe import Recipe
from lavibridge.recipes.sections import component_of_section, kind_of_section
from lavibridge.recipes.training_section import OPTIMIZERS
from lavibridge.training.alignment.objective import check_alignable
from lavibridge.training.distributed.sharding import check_sharding
from lavibridge.training.objectives.native_encoder import check_native_encoder
from lavibridge.training.optimization import check_learning_rates
from lavibridge.training.reporting.trackers import check_trackers
from lavibridge.training.start_weights import check_start_weights


def check_start(recipe: Recipe, out: Path | None) -> None:
    """Raise LaviError if the recipe cannot start on this machine; `out` is the run's folder, if any."""
    check_sharding(recipe)
    check_trackers(recipe.training.trackers)
    _check_extras(recipe)
    _check_pictures(recipe)
    _check_varying_captions(recipe)
    check_learning_rates(recipe)
    if recipe.training.align is not None:
        check_alignable(recipe)
    if recipe.training.teacher is not None:
        check_native_encoder(recipe.vision, "training.teacher")
    pick_device(recipe.training.device)
    check_input_paths(recipe, out)
    if out is not None:
        _check_writable(out)
    if out is None or not saved_checkpoints(out):
        check_start_weights(recipe)


def _check_pictures(recipe: Recipe) -> None:
    """Raise RecipeError if training steps lack pictures, or if there is nothing to do."""
    settings = recipe.training
    needs_pictures = settings.steps > 0 or settings.validation is not None
    if needs_pictures and not registry.load_kind("data", kind_of_section(recipe.data)).has_pictures:
        raise RecipeError(
            f"data of kind '{kind_of_section(recipe.data)}' has no pictures, but training.steps above 0 and "
            "training.validation need them: align without pictures (`lavi align`), or choose other data"
        )
    if settings.steps == 0 and settings.align is None:
        raise RecipeError(
            "training.steps is 0 and training.align is null, so nothing is trained: set one of them"
        )


def _check_varying_captions(recipe: Recipe) -> None:
    """Raise RecipeError if captions that differ from visit to visit should be cached."""
    settings = recipe.training
    parts = flatten_parts(recipe.data.parts) if isinstance(recipe.data, Mixture.Config) else []
    if not any(config.varies_captions for config in (recipe.data, *(config for _, config in parts))):
        return
    on_disk = settings.cache is not None and settings.cache.features
    if recipe.lora.language is None and (on_disk or settings.feature_cache_gb > 0):
        raise RecipeError(
            "data.shuffle_tags and data.tag_dropout make another caption at every visit, so that a cache of "
            "features is of no use: set training.cache.features=false and training.feature_cache_gb=0"
        )


def _check_extras(recipe: Recipe) -> None:
    """Raise RecipeError if the recipe needs a package that is not installed."""
    component_of_section(OPTIMIZERS, recipe.training.optimizer).check_installed()
    for asked, package, extra in (
        (any(_bits(recipe)), "bitsandbytes", "quantize"),
        (recipe.training.attention == "flash", "flash_attn", ""),
    ):
        if asked and find_spec(package) is None:
            how = f"pip install 'lavibridge[{extra}]'" if extra else "pip install flash-attn"
            raise RecipeError(
                f"the recipe needs {package}, which is not installed: {how}, or leave out language.quantize, "
                "vision.quantize and training.attention=flash"
            )


def _bits(recipe: Recipe) -> list[str | None]:
    """`quantize` of both models."""
    return [section.model_dump().get("quantize") for section in (recipe.language, recipe.vision)]


def _check_writable(out: Path) -> None:
    """Raise RunError if a folder cannot be created or written to."""
    try:
        place = next(each for each in (out, *out.absolute().parents) if each.exists())
    except (OSError, ValueError) as error:  # a name that is too long, or has a NUL byte
        raise RunError(f"--out cannot be a folder: {error}: choose another") from error
    if not place.is_dir():
        raise RunError(f"{out} cannot be a folder, because {place} is a file: choose another --out")
    if not os.access(place, os.W_OK | os.X_OK):
        raise RunError(f"{place} cannot be written to: choose another --out")


def check_bridge_at_start(recipe: Recipe, bridge: Bridge, prompts: tuple[str, ...]) -> None:
    """Raise LaviError for a setting that the loaded bridge cannot use."""
    side = recipe.data.model_dump().get("size") or bridge.vision.default_size
    bridge.vision.latent_shape(side, side)
    if recipe.training.preview_every:
        check_prompts(prompts)
        check_seeds([recipe.preview.seed])
        check_sampling_steps(recipe.preview.steps, len(bridge.vision.times), "preview.steps")
