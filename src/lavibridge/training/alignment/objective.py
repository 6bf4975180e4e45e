"""Which objective a recipe aligns with, and whether its models and connector can be aligned so."""

from dataclasses import dataclass

from lavibridge.alignment.base import AlignmentObjective, AlignmentSolver
from lavibridge.core import registry
from lavibridge.core.errors import ModelError, RecipeError
from lavibridge.recipes.recipe import Recipe
from lavibridge.recipes.sections import component_of_section, kind_of_section, read_kind_section
from lavibridge.recipes.training_section import ALIGNMENT
from lavibridge.training.alignment.teacher import SETTING
from lavibridge.training.objectives.native_encoder import check_native_encoder


@dataclass(frozen=True, kw_only=True)
class AlignmentMethod:
    """How a recipe aligns: what is solved first, and what the steps minimise."""

    solver: AlignmentSolver | None
    objective: AlignmentObjective
    """Also measures what a solver alone has reached."""
    takes_steps: bool


def alignment_method(recipe: Recipe) -> AlignmentMethod:
    """Return the method that `training.align` names, with defaults for the recipe's models."""
    settings = recipe.training.align
    assert settings is not None  # the caller asks for an alignment
    match = None if settings.match is None else component_of_section(ALIGNMENT, settings.match)
    if isinstance(match, AlignmentSolver):
        return AlignmentMethod(solver=match, objective=_default_objective(recipe), takes_steps=False)
    start = None if settings.start is None else read_kind_section(ALIGNMENT, settings.start)
    return AlignmentMethod(
        solver=None if start is None else component_of_section(ALIGNMENT, start),
        objective=_default_objective(recipe) if match is None else match,
        takes_steps=True,
    )


def _default_objective(recipe: Recipe) -> AlignmentObjective:
    """Return `attention` where the models have cross-attention layers and tokens, else `blocks`."""
    is_joint = registry.load_kind("vision", kind_of_section(recipe.vision)).joint_attention
    is_per_block = registry.load_kind("connectors", kind_of_section(recipe.connector)).per_block
    kind = "blocks" if is_joint or is_per_block else "attention"
    objective: AlignmentObjective = component_of_section(ALIGNMENT, read_kind_section(ALIGNMENT, kind))
    return objective


def check_alignable(recipe: Recipe) -> None:
    """Raise LaviError if the recipe's models or connector cannot be aligned; loads no weights."""
    settings = recipe.training.align
    assert settings is not None  # the caller asks for an alignment
    connector = registry.load_kind("connectors", kind_of_section(recipe.connector))
    vision = registry.load_kind("vision", kind_of_section(recipe.vision))
    method = alignment_method(recipe)
    for each in (method.solver, method.objective):
        refusal = None if each is None else each.refusal(connector, vision)
        if refusal is not None:
            raise ModelError(
                f"{SETTING}.match is {registry.kind_of(ALIGNMENT, each)}: {refusal} (connector "
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
