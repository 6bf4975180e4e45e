"""Plans the alignment before a training from its metered passes: memory, seconds per step, hours.

memory = weights + gradients + optimiser + average + activations + caches + program
activations = max(reading, step - weights of the text sides that leave memory before the first step)
hours  = reading captions + noised latents + closed form + steps, at most its share of max_minutes
"""

from dataclasses import dataclass
from math import ceil

from lavibridge.bridge import Bridge
from lavibridge.plan.alignment_passes import TEACHER_CONNECTOR, AlignmentCost, alignment_cost
from lavibridge.plan.devices import Device
from lavibridge.plan.estimate import UPDATE, MemoryEstimate, seconds_of
from lavibridge.plan.meta_model import LANGUAGE_PART, VISION_PARTS, ModelPart
from lavibridge.recipes.recipe import Recipe
from lavibridge.recipes.sections import component_of_section
from lavibridge.recipes.training_section import OPTIMIZERS
from lavibridge.training.alignment.aligner import OPTIMIZER


@dataclass(frozen=True, kw_only=True)
class AlignmentPlan:
    """The estimates for an alignment, in bytes, seconds and floating-point operations."""

    match: str
    parts: tuple[ModelPart, ...]
    """The teacher's language model and connector, in addition to the parts of the bridge."""
    captions_per_step: int
    """Captions per step on one device."""
    captions: int
    steps: int
    memory: MemoryEstimate
    memory_total: int
    flops: int
    """Floating-point operations of a step."""
    step_seconds: float
    reading_seconds: float
    """Seconds in which both language models read one caption."""
    hours: float


def plan_alignment(
    recipe: Recipe,
    bridge: Bridge,
    parts: tuple[ModelPart, ...],
    device: Device,
    pictures: int | None,
    tokens: int | None,
    devices: int,
) -> AlignmentPlan | None:
    """Plan a recipe's alignment; None without one. ``bridge`` is its meta bridge, with these ``parts``."""
    settings = recipe.training.align
    batch = 0 if settings is None else max(2, settings.batch // devices)
    cost = alignment_cost(bridge, recipe, batch, tokens, device.type)
    return None if cost is None else estimate_alignment(recipe, cost, parts, device, pictures)


def estimate_alignment(
    recipe: Recipe, cost: AlignmentCost, parts: tuple[ModelPart, ...], device: Device, pictures: int | None
) -> AlignmentPlan:
    """Return memory and time on a device of an alignment that was metered for its type."""
    settings = recipe.training.align
    assert settings is not None  # there is a cost of it
    captions = min(settings.captions, pictures or settings.captions)
    steps = 0 if cost.step is None else settings.steps
    if not cost.is_denoiser_loaded:
        parts = tuple(part for part in parts if part.name not in VISION_PARTS)
    memory = _memory(recipe, cost, parts, device, captions)
    step = 0.0 if cost.step is None else seconds_of(cost.step, device)
    trained = _connector(parts).trained
    step += UPDATE * trained / device.bandwidth if steps else 0.0
    reading = sum(seconds_of(each, device) / count for each, count in cost.readings)
    seconds = steps * step + _readings(recipe, cost, captions, steps * cost.captions) * reading
    seconds += ceil(settings.noised_latents / cost.images) * _seconds_of_latents(cost, device)
    if cost.solving is not None:
        seconds += seconds_of(cost.solving, device)
    if recipe.training.max_minutes is not None:
        seconds = min(seconds, 60 * recipe.training.max_minutes * settings.max_time_share)
    return AlignmentPlan(
        match=cost.match,
        parts=cost.parts,
        captions_per_step=cost.captions,
        captions=captions,
        steps=steps,
        memory=memory,
        memory_total=memory.total,
        flops=0 if cost.step is None else cost.step.flops(),
        step_seconds=step,
        reading_seconds=reading,
        hours=seconds / 3600,
    )


def _memory(
    recipe: Recipe, cost: AlignmentCost, parts: tuple[ModelPart, ...], device: Device, captions: int
) -> MemoryEstimate:
    settings = recipe.training.align
    assert settings is not None  # otherwise there is no cost
    trained = _connector(parts).trained
    gradients = 4 * trained
    features = cost.captions * sum(cost.feature_bytes)
    if device.type == "cpu":
        features = sum(
            int(min(settings.feature_cache_gb * 1e9, size * captions)) for size in cost.feature_bytes
        )
    every = sum(part.trained for part in parts)
    step_peak = max(0, cost.step_peak - (gradients if cost.step is not None else 0))
    return MemoryEstimate(
        weights=sum(part.bytes for part in (*parts, *cost.parts)),
        gradients=gradients,
        optimiser=int(component_of_section(OPTIMIZERS, OPTIMIZER).state_bytes * trained),
        average=0 if recipe.training.ema is None else 4 * every,
        activations=max(cost.reading_peak, step_peak - _unloaded_bytes(recipe, cost, parts, captions)),
        teacher=0,
        encoding=0,
        caches=cost.kept + features,
        program=device.program,
    )


def _readings(recipe: Recipe, cost: AlignmentCost, captions: int, visits: int) -> float:
    """The number of readings: once for captions whose features fit into the cache, others every time."""
    settings, cache = recipe.training.align, recipe.training.cache
    assert settings is not None  # there is a cost of it
    kept = min(1.0, settings.feature_cache_gb * 1e9 / max(cost.feature_bytes) / captions)
    if cache is not None and cache.features and recipe.lora.language is None:
        kept = 1.0
    first = captions if cost.step is None else min(captions, visits)
    return first + max(0, visits - first) * (1 - kept) + settings.held_out


def _unloaded_bytes(recipe: Recipe, cost: AlignmentCost, parts: tuple[ModelPart, ...], captions: int) -> int:
    """Bytes of the text sides that leave memory before the first step: all their features are cached."""
    settings, cache = recipe.training.align, recipe.training.cache
    assert settings is not None  # there is a cost of it
    student = next(part.bytes for part in parts if part.name == LANGUAGE_PART)
    teacher = sum(part.bytes for part in cost.parts if part.name != TEACHER_CONNECTOR)
    is_on_disk = cache is not None and cache.features
    room = settings.feature_cache_gb * 1e9
    sides = zip((student, teacher), cost.feature_bytes, cost.can_unload, strict=True)
    return sum(
        weights
        for weights, features, can_unload in sides
        if can_unload and (is_on_disk or features * captions <= room)
    )


def _seconds_of_latents(cost: AlignmentCost, device: Device) -> float:
    """Seconds to make some noised latents, by guided generation or encoding, and to prepare them."""
    drawn = 0.0 if cost.drawing is None else 2 * seconds_of(cost.drawing, device)
    return drawn + (0.0 if cost.collecting is None else seconds_of(cost.collecting, device))


def _connector(parts: tuple[ModelPart, ...]) -> ModelPart:
    return next(part for part in parts if part.name == "connector")
