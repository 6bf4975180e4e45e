"""Chooses a recipe's alignment objective, and checks that its models and connector support it."""

from dataclasses import dataclass
from typing import Any

from lavibridge.alignment.base import AlignmentObjective, AlignmentSolver
from lavibridge.alignment.tokens import check_places
from lavibridge.bridge.saved_bridge import SavedBridge
from lavibridge.connectors.base import Connector
from lavibridge.core import registry
from lavibridge.core.config import Config
from lavibridge.core.errors import ModelError, RecipeError
from lavibridge.recipes.recipe import Recipe
from lavibridge.recipes.sections import kind_of_section, read_kind_section, read_section
from lavibridge.recipes.training_section import ALIGNMENT, AlignmentSection
from lavibridge.training.alignment.teacher import SETTING, read_teacher
from lavibridge.training.objectives.native_encoder import check_native_encoder, native_tokens_per_prompt


@dataclass(frozen=True, kw_only=True)
class AlignmentMethod:
    """How a recipe aligns: the solver that runs first, and the objective that the steps minimise."""

    solver: AlignmentSolver | None
    objective: AlignmentObjective
    """If there are no steps, it measures the solver's result."""
    takes_steps: bool
    is_measured: bool
    """Whether the objective measures held-out captions."""
    samples_latents: bool
    """Whether the noised latents come from the teacher's generation; otherwise they come from the data."""

    @property
    def uses_objective(self) -> bool:
        """Whether the objective is ever computed: a solver whose result nobody measures does without it."""
        return self.takes_steps or self.is_measured

    @property
    def calls_denoiser(self) -> bool:
        """Whether any part of the alignment calls the denoiser."""
        return self.uses_objective and self.objective.needs_latents


def alignment_method(recipe: Recipe) -> AlignmentMethod:
    """Return the method that `training.align` names, with defaults for the recipe's models."""
    settings = recipe.training.align
    assert settings is not None  # the caller asks for an alignment
    match = _build(_default_match(recipe) if settings.match is None else settings.match)
    solver = None if settings.start is None else _build(settings.start)
    takes_steps = not isinstance(match, AlignmentSolver)
    if isinstance(match, AlignmentSolver):
        solver, match = match, _build(_default_match(recipe))
    has_pictures = registry.load_kind("data", kind_of_section(recipe.data)).has_pictures
    return AlignmentMethod(
        solver=solver,
        objective=match,
        takes_steps=takes_steps,
        is_measured=settings.held_out > 0,
        samples_latents=settings.latents == "sampling"
        or not has_pictures
        or (settings.latents == "auto" and match.follows_sampling),
    )


def needs_vision_weights(recipe: Recipe) -> bool:
    """Whether a run computes anything with its vision model, beside the model's own text encoders.

    It does not if it only aligns (`lavi align`) and the objective compares tokens. LoRA of the vision model
    and sharding need the weights in any case.
    """
    training = recipe.training
    if training.align is None or training.steps > 0 or training.validation is not None:
        return True
    if training.preview_every or training.sharding is not None or recipe.lora.vision is not None:
        return True
    # A half recognises its model by what the model predicts.
    if training.start is not None or kind_of_section(recipe.connector) == "pivot":
        return True
    return alignment_method(recipe).calls_denoiser


def _build(choice: Config | str) -> Any:
    """Make a new component of a kind; it keeps noised latents, so no two alignments may share it."""
    section = read_kind_section(ALIGNMENT, choice)
    return registry.load_kind(ALIGNMENT, kind_of_section(section))(section)


def _default_match(recipe: Recipe) -> str:
    """Return `tokens` for a connector that continues the teacher's and so makes the same tokens; `blocks` for
    joint attention and per-block connectors; `attention` otherwise."""
    connector = registry.load_kind("connectors", kind_of_section(recipe.connector))
    if connector.needs_teacher and connector.fixed_tokens(recipe.connector) is not None:
        return "tokens"
    is_joint = registry.load_kind("vision", kind_of_section(recipe.vision)).joint_attention
    return "blocks" if is_joint or connector.per_block else "attention"


def check_alignable(recipe: Recipe) -> None:
    """Raise LaviError if the recipe's models or connector cannot be aligned. Loads no weights."""
    settings = recipe.training.align
    assert settings is not None  # the caller asks for an alignment
    connector = registry.load_kind("connectors", kind_of_section(recipe.connector))
    config = _connector_config(recipe)
    vision = registry.load_kind("vision", kind_of_section(recipe.vision))
    method = alignment_method(recipe)
    for each in (method.solver, method.objective):
        refusal = None if each is None else each.refusal(connector, config, vision)
        if refusal is not None:
            raise ModelError(
                f"{SETTING}.match is {registry.kind_of(ALIGNMENT, each)}: {refusal} (connector "
                f"'{kind_of_section(recipe.connector)}', vision model of kind "
                f"'{kind_of_section(recipe.vision)}'); choose another match, or leave {SETTING} out"
            )
    data = registry.load_kind("data", kind_of_section(recipe.data))
    if settings.latents == "data" and not data.has_pictures:
        raise RecipeError(
            f"{SETTING}.latents is data, but data of kind '{kind_of_section(recipe.data)}' has no pictures: "
            f"use {SETTING}.latents=sampling"
        )
    if settings.teacher is None:
        if connector.needs_teacher:
            raise RecipeError(
                f"{SETTING}.teacher: the connector '{kind_of_section(recipe.connector)}' continues the "
                "connector of a trained bridge: name that bridge (`lavi align --from BRIDGE --translate`)"
            )
        check_native_encoder(recipe.vision, SETTING)
        teacher = None
    else:
        teacher = read_teacher(settings.teacher, recipe.vision)
    if method.objective.compares_places:
        _check_places(recipe, settings, connector, teacher)


def _connector_config(recipe: Recipe) -> Connector.Config:
    """The options of the recipe's connector."""
    assert isinstance(recipe.connector, Connector.Config)  # by its section
    return recipe.connector


def _check_places(
    recipe: Recipe, settings: AlignmentSection, connector: type[Connector], teacher: SavedBridge | None
) -> None:
    """Raise ModelError if the configurations tell that student and teacher have unequally many tokens."""
    source = str(recipe.vision.model_dump()["source"])
    if teacher is None:
        places = native_tokens_per_prompt(recipe.vision, SETTING, settings.max_sequence_length)
    else:
        taught = registry.load_kind("connectors", teacher.connector["kind"])
        found = taught.fixed_tokens(read_section("connector", teacher.connector))
        if found is None:  # the text sets their number: `Tokens.prepare` looks at real prompts
            return
        places = found[1]
    check_places(connector, _connector_config(recipe), source, places)
