"""Which objective a recipe aligns with, and whether its models and connector can be aligned so."""

from typing import Any

from lavibridge.alignment.base import AlignmentObjective
from lavibridge.core import registry
from lavibridge.core.errors import ModelError, RecipeError
from lavibridge.recipes.recipe import Recipe
from lavibridge.recipes.sections import component_of_section, kind_of_section, read_kind_section
from lavibridge.recipes.training_section import ALIGNMENT
from lavibridge.training.alignment.teacher import SETTING
from lavibridge.training.objectives.native_encoder import check_native_encoder

CLOSED_FORM = read_kind_section(ALIGNMENT, "closed_form")


def alignment_objective(recipe: Recipe) -> AlignmentObjective:
    """Return the objective that `training.align.match` names, or the default for the recipe's models."""
    settings = recipe.training.align
    assert settings is not None  # the caller asks for an alignment
    return default_objective(recipe) if settings.match is None else build_objective(settings.match)


def default_objective(recipe: Recipe) -> AlignmentObjective:
    """Return `attention` where the models have cross-attention layers and tokens, else `blocks`."""
    is_joint = registry.load_kind("vision", kind_of_section(recipe.vision)).joint_attention
    is_per_block = registry.load_kind("connectors", kind_of_section(recipe.connector)).per_block
    return build_objective(
        read_kind_section(ALIGNMENT, "blocks" if is_joint or is_per_block else "attention")
    )


def build_objective(section: Any) -> AlignmentObjective:
    """Return the objective that a section describes."""
    found: AlignmentObjective = component_of_section(ALIGNMENT, section)
    return found


def check_alignable(recipe: Recipe) -> None:
    """Raise LaviError if the recipe's models or connector cannot be aligned; loads no weights."""
    settings = recipe.training.align
    assert settings is not None  # the caller asks for an alignment
    connector = registry.load_kind("connectors", kind_of_section(recipe.connector))
    vision = registry.load_kind("vision", kind_of_section(recipe.vision))
    objectives = [alignment_objective(recipe)]
    if settings.start is not None:
        objectives.append(build_objective(CLOSED_FORM))
    for objective in objectives:
        refusal = objective.refusal(connector, vision)
        if refusal is not None:
            raise ModelError(
                f"{SETTING}.match is {registry.kind_of(ALIGNMENT, objective)}: {refusal} (connector "
                f"'{kind_of_section(recipe.connector)}', vision model of kind "
                f"'{kind_of_section(recipe.vision)}'); choose another match, or leave {SETTING} out"
            )
    data = registry.load_kind("data", kind_of_section(recipe.data))
    if settings.latents == "data" and not data.has_pictures:
        raise RecipeError(
            f"{SETTING}.latents is data, and data of kind '{kind_of_section(recipe.data)}' has no pictures: "
            f"use {SETTING}.latents=sampling"
        )
    if settings.teacher is None:
        if connector.needs_teacher:
            raise RecipeError(
                f"{SETTING}.teacher: the connector '{kind_of_section(recipe.connector)}' continues that of a "
                "trained bridge: name the bridge (`lavi align --from BRIDGE --translate`)"
            )
        check_native_encoder(recipe.vision, SETTING)
