"""Estimates a recipe's memory, arithmetic and time.

    memory = weights + gradients + optimiser + average + activations + teacher + encoding + caches + program
    step   = accumulate * (pass + teacher's target) + optimiser

Another thread encodes images during the step, unless `training.cache` sets a folder of latents. Only on a CPU
do the program and the caches use the device's memory.
"""

from dataclasses import dataclass, fields

from lavibridge.bridge import Bridge
from lavibridge.plan.devices import Device
from lavibridge.plan.meta_model import ModelPart, largest_unpacked_layer, model_parts
from lavibridge.plan.metered_passes import (
    PassCost,
    encoding_pass,
    feature_numbers,
    keeps_features,
    latent_numbers,
    metered_caption_tokens,
    training_pass,
)
from lavibridge.plan.text_side_passes import TeacherCost, teacher_text_side_cost
from lavibridge.recipes.recipe import Recipe
from lavibridge.recipes.sections import component_of_section
from lavibridge.recipes.training_section import OPTIMIZERS

UPDATE = 52
"""Bytes moved per trained weight: norm 4, clipping 8, AdamW 28, average 12."""


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Peak bytes on the device during a step."""

    weights: int
    """Weights of the bridge, and of the vision model's own text encoders if there is a teacher."""
    gradients: int
    optimiser: int
    average: int
    activations: int
    """Activations and temporary tensors of a pass."""
    teacher: int
    """Bytes by which the teacher's pass exceeds the activations; they never exist at the same time."""
    encoding: int
    """Bytes that the autoencoder needs to encode the next images; 0 with a cache."""
    caches: int = 0
    """Latents and features that the run caches in memory; 0 unless the device is a CPU."""
    program: int = 0
    """Python and its libraries; 0 unless the device is a CPU."""

    @property
    def total(self) -> int:
        """The sum of all."""
        return sum(getattr(self, each.name) for each in fields(self))


@dataclass(frozen=True, kw_only=True)
class CostEstimate:
    """The costs of a recipe for one batch size on one kind of device."""

    parts: tuple[ModelPart, ...]
    memory: MemoryEstimate
    training: PassCost
    encoding: PassCost
    teacher: TeacherCost | None
    tokens: int
    """Tokens per caption, including special tokens."""
    latent_numbers: int
    """Number of values per latent."""
    feature_numbers: int
    """Number of values in a caption's features."""
    keeps_features: bool
    """Whether training caches features of captions."""

    @property
    def bridge_parts(self) -> tuple[ModelPart, ...]:
        """The parts of the bridge, without a teacher's text encoders."""
        return self.parts if self.teacher is None else self.parts[: -len(self.teacher.parts)]

    @property
    def passes(self) -> tuple[PassCost, ...]:
        """The passes that each step repeats: the teacher's, if there is one, and the training pass."""
        return (self.training,) if self.teacher is None else (self.teacher.target, self.training)

    def is_launching(self, device: Device) -> bool:
        """Whether launching kernels from Python takes longer than the kernels themselves."""
        return _launching(self.training, device) > _computing(self.training, device)

    def step_seconds(self, recipe: Recipe, device: Device) -> float:
        """Seconds of an optimiser step, if latents are cached."""
        trained = sum(part.trained for part in self.parts)
        passes = sum(seconds_of(each, device) for each in self.passes)
        return recipe.training.accumulate * passes + UPDATE * trained / device.bandwidth


def estimate_costs(recipe: Recipe, bridge: Bridge, batch: int, tokens: int | None, type: str) -> CostEstimate:
    """Meter a recipe's passes with this ``batch`` on a device of ``type``; ``bridge`` is its meta bridge."""
    training = training_pass(bridge, recipe, batch, tokens, type)
    encoding = encoding_pass(bridge, recipe, batch)
    teacher = teacher_text_side_cost(bridge, recipe, batch, tokens, type)
    bits = [section.model_dump().get("quantize") for section in (recipe.language, recipe.vision)]
    every = model_parts(bridge, *bits)
    every += () if teacher is None else teacher.parts
    trained = sum(part.trained for part in every)
    settings = recipe.training
    gradients = 4 * trained
    activations = max(0, training.peak - gradients) + largest_unpacked_layer(bridge, *bits)
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
