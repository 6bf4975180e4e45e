"""Estimates a recipe's memory, arithmetic and time.

    memory = weights + gradients + optimiser + average + activations + teacher + encoding + caches + program
    step   = accumulate * (pass + teacher's target) + optimiser

Another thread encodes pictures during the step, unless `training.cache` names a folder of latents. Only on a
CPU do the program and the caches in memory take of the device's memory.
"""

from dataclasses import dataclass, fields

from lavibridge.bridge import Bridge
from lavibridge.plan.devices import Device
from lavibridge.plan.meta_model import ModelPart, model_parts
from lavibridge.plan.metered_passes import (
    PassCost,
    encoding_pass,
    feature_numbers,
    keeps_features,
    latent_numbers,
    metered_caption_tokens,
    training_pass,
)
from lavibridge.plan.text_side_passes import TeacherCost, teacher_cost
from lavibridge.recipes.recipe import Recipe
from lavibridge.recipes.sections import component_of_section
from lavibridge.recipes.training_section import OPTIMIZERS

UPDATE = 52
"""Bytes moved per trained weight: norm 4, clipping 8, AdamW 28, average 12."""


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Peak bytes on the device during a step."""

    weights: int
    """Of the bridge, and of the own text encoders where there is a teacher."""
    gradients: int
    optimiser: int
    average: int
    activations: int
    """What a pass holds in addition, temporary tensors included."""
    teacher: int
    """What the teacher's pass holds beyond the activations, which are not there at the same time."""
    encoding: int
    """What the autoencoder holds while it encodes the next pictures; 0 with a cache."""
    caches: int = 0
    """Latents and features that the run keeps in memory, where that is the device's (a CPU's)."""
    program: int = 0
    """Python and its libraries, where they take of the device's memory (a CPU's)."""

    @property
    def total(self) -> int:
        """The sum of all."""
        return sum(getattr(self, each.name) for each in fields(self))


@dataclass(frozen=True, kw_only=True)
class CostEstimate:
    """The costs of a recipe at one batch size on one kind of device."""

    parts: tuple[ModelPart, ...]
    memory: MemoryEstimate
    training: PassCost
    encoding: PassCost
    teacher: TeacherCost | None
    tokens: int
    """Tokens per caption, special tokens included."""
    latent_numbers: int
    """Numbers per latent."""
    feature_numbers: int
    """Numbers in a caption's features."""
    keeps_features: bool
    """Whether training keeps features of captions."""

    @property
    def bridge_parts(self) -> tuple[ModelPart, ...]:
        """The parts of the bridge, without the own text encoders of a teacher."""
        return self.parts if self.teacher is None else self.parts[: -len(self.teacher.parts)]

    @property
    def passes(self) -> tuple[PassCost, ...]:
        """What each pass of a step computes: that of training, and the teacher's."""
        return (self.training,) if self.teacher is None else (self.teacher.target, self.training)

    def is_launching(self, device: Device) -> bool:
        """Whether a pass waits for Python to launch kernels rather than for the kernels."""
        return _launching(self.training, device) > _computing(self.training, device)

    def step_seconds(self, recipe: Recipe, device: Device) -> float:
        """Seconds of an optimiser step, with cached latents and own features."""
        trained = sum(part.trained for part in self.parts)
        passes = sum(seconds_of(each, device) for each in self.passes)
        return recipe.training.accumulate * passes + UPDATE * trained / device.bandwidth


def estimate_costs(recipe: Recipe, bridge: Bridge, batch: int, tokens: int | None, type: str) -> CostEstimate:
    """Meter the passes of a recipe at ``batch`` on a device of ``type``; ``bridge`` is its meta bridge."""
    training = training_pass(bridge, recipe, batch, tokens, type)
    encoding = encoding_pass(bridge, recipe, batch)
    teacher = teacher_cost(bridge, recipe, batch, tokens, type)
    every = model_parts(bridge, recipe.language.model_dump().get("quantize"))
    every += () if teacher is None else teacher.parts
    trained = sum(part.trained for part in every)
    settings = recipe.training
    gradients = 4 * trained
    activations = max(0, training.peak - gradients)
    return CostEstimate(
        parts=every,
        memory=MemoryEstimate(
            weights=sum(part.bytes for part in every),
            gradients=gradients,
            optimiser=int(component_of_section(OPTIMIZERS, settings.optimizer).state_bytes * trained),
            average=0 if settings.ema is None else 4 * trained,
            activations=activations,
            teacher=0 if teacher is None else max(0, teacher.peak - activations),
            encoding=encoding.peak if recipe.training.cache is None else 0,
        ),
        training=training,
        encoding=encoding,
        teacher=teacher,
        tokens=metered_caption_tokens(bridge, tokens),
        latent_numbers=latent_numbers(bridge, recipe),
        feature_numbers=feature_numbers(bridge, tokens),
        keeps_features=keeps_features(bridge, recipe),
    )


def seconds_of(work: PassCost, device: Device) -> float:
    """Seconds of a pass: the slower of computing and launching."""
    return max(_computing(work, device), _launching(work, device))


def _computing(work: PassCost, device: Device) -> float:
    return sum(
        max(each.flops / (device.half if each.is_half else device.single), each.traffic / device.bandwidth)
        for each in work.operations
    )


def _launching(work: PassCost, device: Device) -> float:
    return len(work.operations) * device.launch
