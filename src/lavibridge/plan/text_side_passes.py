"""Meters the costs of a teacher: the weights and reading of its text encoders, and its passes."""

from dataclasses import dataclass

import torch

from lavibridge.bridge import Bridge
from lavibridge.plan.meta_model import ModelPart, model_part
from lavibridge.plan.meta_values import MetaValues
from lavibridge.plan.metered_passes import (
    PassCost,
    caption,
    cost_of,
    feature_numbers,
    metering,
    number_format,
    unknown_draw,
)
from lavibridge.recipes.recipe import Recipe
from lavibridge.training.objectives.teacher import Teacher

READING, TARGET = "own text encoders", "teacher"
"""Names of the parts in a plan."""


@dataclass(frozen=True, kw_only=True)
class TeacherCost:
    """The costs of a teacher, in addition to those of the training pass."""

    parts: tuple[ModelPart, ...]
    """The vision model's own text encoders."""
    reading: PassCost
    """All encoders read a batch of captions."""
    target: PassCost
    """The teacher predicts the target of a pass: one or two calls of the denoiser, without gradients."""
    feature_bytes: int
    """Bytes of a caption's float32 features."""

    @property
    def peak(self) -> int:
        """Peak bytes beyond the weights, over reading captions and computing the target."""
        return max(self.reading.peak, self.target.peak)


def teacher_text_side_cost(
    bridge: Bridge, recipe: Recipe, batch: int, tokens: int | None, type: str
) -> TeacherCost | None:
    """Meter a recipe's teacher on a device of ``type``; None without one. ``bridge`` is a meta bridge."""
    settings = recipe.training.teacher
    if settings is None:
        return None
    draw = unknown_draw(bridge, recipe, batch, tokens)
    with MetaValues():
        teacher = Teacher(bridge, settings.guidance)
        native = teacher.native
        captions = (caption(native, tokens),) * batch
        with metering([native], [], type) as reading, reading.during(READING), torch.no_grad():
            features = native.features(captions)
        given = [draw.batch.latents, draw.noise, draw.t, features.hidden, features.mask]
        with metering([native], given, type, number_format(recipe)) as target, target.during(TARGET):
            teacher.predict(draw, features)
        size = 4 * feature_numbers(native, tokens)
    return TeacherCost(
        parts=encoder_parts(native),
        reading=cost_of(reading),
        target=cost_of(target),
        feature_bytes=size,
    )


def encoder_parts(native: Bridge) -> tuple[ModelPart, ...]:
    """The vision model's own text encoders, named after their folders."""
    encoders = native.language.backbone.named_children()
    return tuple(model_part(f"own {folder}", encoder.parameters()) for folder, encoder in encoders)
