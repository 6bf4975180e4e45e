"""Estimates a recipe's memory, arithmetic and time.

    memory = weights + gradients + optimiser + average + activations + concurrent encoding of pictures
    step   = accumulate * pass + optimiser

Another thread encodes pictures during the step, unless `training.cache` names a folder of latents.
"""

from dataclasses import dataclass

from lavibridge.bridge import Bridge
from lavibridge.plan.devices import Device
from lavibridge.plan.meta_model import ModelPart, model_parts
from lavibridge.plan.metered_passes import (
    PassCost,
    caption_tokens,
    encoding_pass,
    feature_numbers,
    latent_numbers,
    training_pass,
)
from lavibridge.recipes.recipe import Recipe
from lavibridge.recipes.sections import component_of_section
from lavibridge.recipes.training_section import OPTIMIZERS

UPDATE = 52
"""Bytes moved per trained weight: norm 4, clipping 8, AdamW 28, average 12."""


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Peak bytes on the device during a step."""

    weights: int
    gradients: int
    optimiser: int
    average: int
    activations: int
    """What a pass holds in addition, temporary tensors included."""
    encoding: int
    """What the autoencoder holds while it encodes the next pictures; 0 with a cache."""

    @property
    def total(self) -> int:
        """The sum of all."""
        return (
            self.weights + self.gradients + self.optimiser + self.average + self.activations + self.encoding
        )


@dataclass(frozen=True, kw_only=True)
class CostEstimate:
    """The costs of a recipe at one batch size on one kind of device."""

    parts: tuple[ModelPart, ...]
    memory: MemoryEstimate
    training: PassCost
    encoding: PassCost
    tokens: int
    """Tokens per caption, special tokens included."""
    latent_numbers: int
    """Numbers per latent."""
    feature_numbers: int
    """Numbers in a caption's features."""

    def seconds_of(self, work: PassCost, device: Device) -> float:
        """Seconds of a pass: the slower of computing and launching."""
        return max(_computing(work, device), _launching(work, device))

    def is_launching(self, device: Device) -> bool:
        """Whether a pass waits for Python to launch kernels rather than for the kernels."""
        return _launching(self.training, device) > _computing(self.training, device)

    def step_seconds(self, recipe: Recipe, device: Device) -> float:
        """Seconds of an optimiser step, with cached latents."""
        trained = sum(part.trained for part in self.parts)
        passes = recipe.training.accumulate * self.seconds_of(self.training, device)
        return passes + UPDATE * trained / device.bandwidth


def estimate_costs(recipe: Recipe, bridge: Bridge, batch: int, tokens: int | None, type: str) -> CostEstimate:
    """Meter the passes of a recipe at ``batch`` on a device of ``type``; ``bridge`` is its meta bridge."""
    training = training_pass(bridge, recipe, batch, tokens, type)
    encoding = encoding_pass(bridge, recipe, batch)
    every = model_parts(bridge, recipe.language.model_dump().get("quantize"))
    trained = sum(part.trained for part in every)
    settings = recipe.training
    gradients = 4 * trained
    return CostEstimate(
        parts=every,
        memory=MemoryEstimate(
            weights=sum(part.bytes for part in every),
            gradients=gradients,
            optimiser=int(component_of_section(OPTIMIZERS, settings.optimizer).state_bytes * trained),
            average=0 if settings.ema is None else 4 * trained,
            activations=max(0, training.peak - gradients),
            encoding=encoding.peak if recipe.training.cache is None else 0,
        ),
        training=training,
        encoding=encoding,
        tokens=caption_tokens(bridge, tokens),
        latent_numbers=latent_numbers(bridge, recipe),
        feature_numbers=feature_numbers(bridge, tokens),
    )


def _computing(work: PassCost, device: Device) -> float:
    return sum(
        max(each.flops / (device.half if each.is_half else device.single), each.traffic / device.bandwidth)
        for each in work.operations
    )


def _launching(work: PassCost, device: Device) -> float:
    return len(work.operations) * device.launch
