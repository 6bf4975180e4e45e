"""Which objective a recipe aligns with, and whether its models and connector can be aligned so."""

from typing import Any

from lavibridge.alignment.base import AlignmentObjective
from lavibridge.core import registry
from lavibridge.core.errors import ModelError, RecipeError
from lavibridge.recipes.recipe import Recipe
from lavibridge.recipes.sections import component, kind_of, read_kind
from lavibridge.recipes.training import ALIGNMENT
from lavibridge.training.alignment.teacher import SETTING
from lavibridge.training.objectives.native_encoder import check_native_encoder

CLOSED_FORM = read_kind(ALIGNMENT, "closed_form")


def alignment_objective(recipe: Recipe) -> AlignmentObjective:
    """Return the objective that `training.align.match` names, or the default for the recipe's models."""
    settings = recipe.training.align
    assert settings is not None  # the caller asks for an alignment
    return default_objective(recipe) if settings.match is None else build_objective(settings.match)


def default_objective(recipe: Recipe) -> AlignmentObjective:
    """Return `attention` where the models have cross-attention layers and tokens, else `blocks`."""
    is_joint = registry.load("vision", kind_of(recipe.vision)).joint_attention
    is_per_block = registry.load("connectors", kind_of(recipe.connector)).per_block
    return build_objective(read_kind(ALIGNMENT, "blocks" if is_joint or is_per_block else "attention"))


def build_objective(section: Any) -> AlignmentObjective:
    """Return the objective that a section describes."""
    found: AlignmentObjective = component(ALIGNMENT, section)
    return found


def check_alignable(recipe: Recipe) -> None:
    """Raise LaviError if the recipe's models or connector cannot be aligned; loads no weights."""
    settings = recipe.training.align
    assert settings is not None  # the caller asks for an alignment
    connector = registry.load("connectors", kind_of(recipe.connector))
    vision = registry.load("vision", kind_of(recipe.vision))
    objectives = [alignment_objective(recipe)]
    if settings.start is not None:
        objectives.append(build_objective(CLOSED_FORM))
    for objective in objectives:
        refusal = objective.refusal(connector, vision)
        if refusal is not None:
            raise ModelError(
                f"{SETTING}.match is {registry.kind_of(ALIGNMENT, objective)}: {refusal} (connector "
                f"'{kind_of(recipe.connector)}', vision model of kind '{kind_of(recipe.vision)}'); choose "
                f"another match, or leave {SETTING} out"
            )
    data = registry.load("data", kind_of(recipe.data))
    if settings.latents == "data" and not data.has_pictures:
        raise RecipeError(
            f"{SETTING}.latents is data, and data of kind '{kind_of(recipe.data)}' has no pictures: use "
            f"{SETTING}.latents=sampling"
        )
    if settings.teacher is None:
        if connector.needs_teacher:
            raise RecipeError(
                f"{SETTING}.teacher: the connector '{kind_of(recipe.connector)}' continues that of a trained "
                "bridge: name the bridge (`lavi align --from BRIDGE --translate`)"
            )
        check_native_encoder(recipe.vision, SETTING)
