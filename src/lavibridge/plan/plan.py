"""`lavi plan`'s figures for one recipe on one device, as a value that can be written as JSON.

plan = make_plan(load_recipe("t5-large_sd14_lavi"), find_device("rtx4090"), PlanOptions(pictures=1_000_000))
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from lavibridge.core.device import pick_dtype
from lavibridge.plan.devices import GIB, Device
from lavibridge.plan.estimate import CostEstimate, MemoryEstimate, estimate_costs
from lavibridge.plan.meta_model import ModelPart, build_meta_bridge, with_changes
from lavibridge.plan.search import SHARE, Configuration, search_configurations, variants
from lavibridge.recipes.recipe import Recipe
from lavibridge.training.cache.features import refusal


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """What a recipe does not say."""

    gb: float | None = None
    """GiB of the device, where it is another than the table's."""
    pictures: int | None = None
    """Pictures in the data."""
    tokens: int | None = None
    """Tokens of a caption; the most that the recipe allows where not given."""
    devices: int = 1
    """How many of the device."""
    price: float | None = None
    """Of one device for an hour, in any currency."""
    search: bool = False
    """Look for the fastest choice that fits even where the recipe fits."""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """Everything that is known of a run beforehand. Bytes, seconds, floating-point operations."""

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
    activations_checkpointed: int
    """What a pass holds with `training.checkpointing`."""
    fits: bool
    flops: dict[str, int]
    """Of one pass on one device, by part of it."""
    operations: int
    """Kernels of one pass."""
    flops_of_step: int
    """Of one step on one device."""
    step_seconds: float
    is_bound_by_launching: bool
    images_per_second: float
    """On all devices."""
    encoding_seconds: float
    """To encode one picture."""
    hours: float
    """Of the whole run, the encoding of pictures that no cache has included."""
    cost: float | None
    pictures: int | None
    epochs: float | None
    latent_bytes: int
    """On disk, of one picture."""
    feature_bytes: int | None
    """On disk, of one caption; None where the language model is trained."""
    gradient_bytes: int
    """That devices exchange in each step."""
    choices: tuple[Configuration, ...]
    """Ways that fit, the fastest first; looked for where the recipe does not, or when asked to."""


def make_plan(
    recipe: Recipe, device: Device, terms: PlanOptions, tick: Callable[[], None] = lambda: None
) -> TrainingPlan:
    """Plan a recipe's run on a device; calls ``tick`` after each part of the work."""
    if terms.gb is not None:
        device = replace(device, memory=int(terms.gb * GIB))
    settings = recipe.training
    bridge = build_meta_bridge(recipe)
    found = estimate_costs(recipe, bridge, settings.batch, terms.tokens, device.type)
    tick()
    lighter = with_changes(recipe, {"training": {"checkpointing": True}})
    checkpointed = estimate_costs(
        lighter, build_meta_bridge(lighter), settings.batch, terms.tokens, device.type
    )
    tick()
    fits = found.memory.total <= SHARE * device.memory
    kept = search_configurations(recipe, device, terms.tokens, tick) if terms.search or not fits else []
    step = found.step_seconds(recipe, device)
    pictures = settings.batch * settings.accumulate * terms.devices
    each = found.seconds_of(found.encoding, device) / settings.batch
    hours = (settings.steps * step + count_encodings(recipe, terms, found) * each) / 3600
    dtype = torch.float32 if settings.cache is None else pick_dtype(settings.cache.dtype)
    return TrainingPlan(
        device=device,
        devices=terms.devices,
        memory_of_device=device.memory,
        batch=settings.batch,
        accumulate=settings.accumulate,
        steps=settings.steps,
        tokens=found.tokens,
        parts=found.parts,
        memory=found.memory,
        memory_total=found.memory.total,
        activations_checkpointed=checkpointed.memory.activations,
        fits=fits,
        flops={name: found.training.flops(name) for name in found.training.names()},
        operations=len(found.training.operations),
        flops_of_step=settings.accumulate * found.training.flops(),
        step_seconds=step,
        is_bound_by_launching=found.is_launching(device),
        images_per_second=pictures / step,
        encoding_seconds=each,
        hours=hours,
        cost=None if terms.price is None else hours * terms.devices * terms.price,
        pictures=terms.pictures,
        epochs=None if terms.pictures is None else settings.steps * pictures / terms.pictures,
        latent_bytes=2 * found.latent_numbers * dtype.itemsize,
        feature_bytes=found.feature_numbers * dtype.itemsize if refusal(bridge) is None else None,
        gradient_bytes=found.memory.gradients,
        choices=tuple(kept),
    )


def max_ticks(recipe: Recipe) -> int:
    """How often ``tick`` is called at most."""
    return 2 + len(variants(recipe))


def count_encodings(recipe: Recipe, terms: PlanOptions, found: CostEstimate) -> float:
    """How many pictures each device encodes during the run: what fits into memory once, the rest always."""
    settings = recipe.training
    if settings.cache is not None:
        return 0.0
    visits = settings.steps * settings.batch * settings.accumulate
    if terms.pictures is None:
        return float(visits)
    first = min(visits, terms.pictures)
    room = settings.latent_cache_gb * 1e9 / (8 * found.latent_numbers)
    return first + (visits - first) * (1 - min(1.0, room / terms.pictures))
