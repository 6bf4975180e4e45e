"""Plans one recipe on one device, as a value that converts to JSON (`lavi plan`).

plan = make_plan(load_recipe("t5-large_sd14_lavi"), find_device("rtx4090"), PlanOptions(pictures=1_000_000))
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from lavibridge.bridge import Bridge
from lavibridge.core.device import pick_dtype
from lavibridge.plan.alignment_plan import AlignmentPlan, plan_alignment
from lavibridge.plan.devices import GIB, Device
from lavibridge.plan.estimate import CostEstimate, MemoryEstimate, estimate_costs, seconds_of
from lavibridge.plan.meta_model import (
    LANGUAGE_PART,
    ModelPart,
    build_meta_bridge,
    offloaded_bytes,
    with_changes,
)
from lavibridge.plan.metered_passes import drawing_pass
from lavibridge.plan.search import SHARE, Configuration, search_configurations, variants
from lavibridge.recipes.recipe import Recipe
from lavibridge.training.cache.features import features_refusal
from lavibridge.training.objectives.teacher import FEATURE_CACHE_GB


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """Assumptions that a recipe does not contain."""

    gb: float | None = None
    """Memory of the device in GiB, if it differs from the table's."""
    pictures: int | None = None
    """Number of pictures in the data."""
    tokens: int | None = None
    """Tokens per caption; by default the recipe's maximum."""
    devices: int = 1
    """Number of devices."""
    price: float | None = None
    """Price per device and hour, in any currency."""
    search: bool = False
    """Search for the fastest configuration even if the recipe fits."""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """The estimates for a run, in bytes, seconds and floating-point operations."""

    device: Device
    devices: int
    memory_of_device: int
    batch: int
    accumulate: int
    steps: int
    tokens: int
    parts: tuple[ModelPart, ...]
    memory: MemoryEstimate
    memory_total: int
    memory_without_language_model: int | None
    """Bytes once the features of all captions are in `training.cache`, so that the language model leaves
    memory between previews; None if it stays."""
    activations_checkpointed: int
    """Activations with `training.checkpointing`."""
    drawing: int
    """Bytes that generating one image with guidance needs, weights and program included."""
    drawing_offloaded: int
    """The same with the denoiser's blocks in files (`offload`)."""
    fits: bool
    """Whether the training fits, or the alignment of a recipe that only aligns."""
    flops: dict[str, int]
    """Operations of one pass on one device, by part."""
    operations: int
    """Kernel launches of one pass."""
    flops_of_step: int
    """Operations of one step on one device."""
    step_seconds: float
    is_bound_by_launching: bool
    images_per_second: float
    """Throughput of all devices together."""
    encoding_seconds: float
    """Seconds to encode one image."""
    reading_seconds: float | None
    """Seconds in which the teacher's text encoders read one caption; None without a teacher."""
    hours: float
    """Hours of the whole run, including encoding uncached images and reading uncached captions."""
    cost: float | None
    pictures: int | None
    epochs: float | None
    latent_bytes: int
    """Bytes on disk per latent."""
    feature_bytes: int | None
    """Bytes on disk per caption; None if the language model is trained."""
    gradient_bytes: int
    """Bytes that devices exchange per step."""
    alignment: AlignmentPlan | None
    """The alignment before the first step, if there is one."""
    choices: tuple[Configuration, ...]
    """Configurations that fit, fastest first; empty unless the recipe does not fit or a search was
    requested."""

    @property
    def hours_in_all(self) -> float:
        """Hours of the alignment and the training together."""
        return self.hours + (0.0 if self.alignment is None else self.alignment.hours)


def make_plan(
    recipe: Recipe, device: Device, terms: PlanOptions, tick: Callable[[], None] = lambda: None
) -> TrainingPlan:
    """Plan a recipe's run on a device; calls ``tick`` after each part of the work."""
    if terms.gb is not None:
        device = replace(device, memory=int(terms.gb * GIB))
    settings, bridge = recipe.training, build_meta_bridge(recipe)
    per_step = settings.batch * settings.accumulate * terms.devices
    found = estimate_costs(recipe, bridge, settings.batch, terms.tokens, device.type)
    memory = replace(found.memory, caches=_cached_bytes(recipe, terms, found, device), program=device.program)
    tick()
    trains = settings.steps > 0
    is_other = trains and not settings.checkpointing
    checkpointed = _checkpointed(recipe, terms.tokens, device) if is_other else found
    tick()
    parts, pictures = found.bridge_parts, terms.pictures
    alignment = plan_alignment(recipe, bridge, parts, device, pictures, terms.tokens, terms.devices)
    tick()
    needed = memory.total if trains or alignment is None else alignment.memory_total
    fits = needed <= SHARE * device.memory
    is_searched = trains and (terms.search or not fits)
    choices = _choices(recipe, device, memory, terms.tokens, tick) if is_searched else ()
    step = found.step_seconds(recipe, device)
    encoding, reading, beside = _encoding_seconds(recipe, terms, found, device)
    drawing = _drawing(recipe, bridge, parts, device, terms.tokens)
    is_cached = settings.cache is not None and found.keeps_features
    dtype = torch.float32 if settings.cache is None else pick_dtype(settings.cache.dtype)
    plan = TrainingPlan(
        device=device,
        devices=terms.devices,
        memory_of_device=device.memory,
        batch=settings.batch,
        accumulate=settings.accumulate,
        steps=settings.steps,
        tokens=found.tokens,
        parts=found.parts,
        memory=memory,
        memory_total=memory.total,
        memory_without_language_model=_unloaded(recipe, memory, parts, drawing) if is_cached else None,
        activations_checkpointed=checkpointed.memory.activations,
        **drawing,
        fits=fits,
        flops={name: each.flops(name) for each in found.passes for name in each.names()},
        operations=sum(len(each.operations) for each in found.passes),
        flops_of_step=settings.accumulate * sum(each.flops() for each in found.passes),
        step_seconds=step,
        is_bound_by_launching=found.is_launching(device),
        images_per_second=per_step / step,
        encoding_seconds=encoding,
        reading_seconds=reading,
        hours=(settings.steps * step + beside) / 3600,
        cost=None,
        pictures=pictures,
        epochs=None if pictures is None else settings.steps * per_step / pictures,
        latent_bytes=2 * found.latent_numbers * dtype.itemsize,
        feature_bytes=found.feature_numbers * dtype.itemsize if features_refusal(bridge) is None else None,
        gradient_bytes=found.memory.gradients,
        alignment=alignment,
        choices=choices,
    )
    if terms.price is None:
        return plan
    return replace(plan, cost=plan.hours_in_all * terms.devices * terms.price)


def _drawing(
    recipe: Recipe, bridge: Bridge, parts: tuple[ModelPart, ...], device: Device, tokens: int | None
) -> dict[str, int]:
    """Bytes that generating one image needs, with the denoiser's weights in memory and in files."""
    needed = drawing_pass(bridge, recipe, tokens, device.type).peak + device.program
    needed += sum(part.bytes for part in parts)
    return {"drawing": needed, "drawing_offloaded": needed - offloaded_bytes(bridge, parts)}


def _unloaded(
    recipe: Recipe, memory: MemoryEstimate, parts: tuple[ModelPart, ...], drawing: dict[str, int]
) -> int:
    """Bytes that a training needs whose language model is in memory during previews alone."""
    language = next(part.bytes for part in parts if part.name == LANGUAGE_PART)
    previews = drawing["drawing"] + memory.optimiser + memory.average + memory.caches
    return max(memory.total - language, previews if recipe.training.preview_every else 0)


def _encoding_seconds(
    recipe: Recipe, terms: PlanOptions, estimate: CostEstimate, device: Device
) -> tuple[float, float | None, float]:
    """Seconds to encode one image, for the teacher to read one caption, and for all of both in a run."""
    batch, teacher = recipe.training.batch, estimate.teacher
    encoding = seconds_of(estimate.encoding, device) / batch
    reading = None if teacher is None else seconds_of(teacher.reading, device) / batch
    images, captions = count_encodings(recipe, terms, estimate), count_readings(recipe, terms, estimate)
    return encoding, reading, images * encoding + captions * (reading or 0.0)


def max_ticks(recipe: Recipe) -> int:
    """The maximum number of calls of ``tick``."""
    return 3 + len(variants(recipe))


def _choices(
    recipe: Recipe, device: Device, memory: MemoryEstimate, tokens: int | None, tick: Callable[[], None]
) -> tuple[Configuration, ...]:
    """Configurations that fit in addition to the caches and the program."""
    room = SHARE * device.memory - memory.caches - memory.program
    return tuple(search_configurations(recipe, device, room, tokens, tick))


def _checkpointed(recipe: Recipe, tokens: int | None, device: Device) -> CostEstimate:
    """Estimate the costs with gradient checkpointing."""
    lighter = with_changes(recipe, {"training": {"checkpointing": True}})
    return estimate_costs(lighter, build_meta_bridge(lighter), recipe.training.batch, tokens, device.type)


def count_encodings(recipe: Recipe, terms: PlanOptions, estimate: CostEstimate) -> float:
    """Number of encodings on each device during the run: once for images that fit into the memory cache,
    others at every visit."""
    if recipe.training.cache is not None:
        return 0.0
    return _count(recipe, terms, recipe.training.latent_cache_gb, 8 * estimate.latent_numbers)


def count_readings(recipe: Recipe, terms: PlanOptions, estimate: CostEstimate) -> float:
    """Number of captions that the teacher's text encoders read on each device during the run, likewise."""
    if estimate.teacher is None:
        return 0.0
    return _count(recipe, terms, FEATURE_CACHE_GB, estimate.teacher.feature_bytes)


def _cached_bytes(recipe: Recipe, terms: PlanOptions, estimate: CostEstimate, device: Device) -> int:
    """Bytes of latents and features that the run caches in the device's memory; 0 unless it is a CPU."""
    if device.type != "cpu":
        return 0
    settings = recipe.training
    sizes = []
    if settings.cache is None:
        features = settings.feature_cache_gb if estimate.keeps_features else 0.0
        sizes.append((settings.latent_cache_gb, 8 * estimate.latent_numbers))
        sizes.append((features, 4 * estimate.feature_numbers))
    if estimate.teacher is not None:
        sizes.append((FEATURE_CACHE_GB, estimate.teacher.feature_bytes))
    count = min(_visits(recipe), terms.pictures or _visits(recipe))
    return int(sum(min(gigabytes * 1e9, size * count) for gigabytes, size in sizes))


def _count(recipe: Recipe, terms: PlanOptions, gigabytes: float, size: int) -> float:
    """Number of samples to compute during the run, with a cache of these gigabytes, ``size`` bytes each."""
    visits = _visits(recipe)
    if terms.pictures is None:
        return float(visits)
    first = min(visits, terms.pictures)
    return first + (visits - first) * (1 - min(1.0, gigabytes * 1e9 / size / terms.pictures))


def _visits(recipe: Recipe) -> int:
    """Number of samples that a device visits during the run."""
    settings = recipe.training
    return settings.steps * settings.batch * settings.accumulate
