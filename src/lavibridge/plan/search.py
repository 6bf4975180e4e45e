"""Searches for the fastest configuration that fits a device: batch, checkpointing and frozen formats.

The number of images per step stays fixed, so a smaller batch means more passes. Memory grows about linearly
with the batch, so two metered batches predict which one to meter next.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lavibridge.core.sources import GGUF, find_gguf, find_single_file
from lavibridge.plan.devices import Device
from lavibridge.plan.estimate import estimate_costs
from lavibridge.plan.meta_model import build_meta_bridge, with_changes
from lavibridge.recipes.recipe import Recipe

SHARE = 0.92
"""Share of a device's memory that a plan may use; the driver and fragmentation take the rest."""
HALVED = {"language": {"dtype": "bfloat16"}, "vision": {"dtype": "bfloat16"}}
Changes = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A configuration of the recipe that fits a device."""

    settings: tuple[str, ...]
    """Settings to add to the command line."""
    batch: int
    accumulate: int
    memory: int
    """Peak bytes."""
    seconds: float
    """Seconds per step."""


def search_configurations(
    recipe: Recipe, device: Device, memory_limit: float, tokens: int | None, tick: Callable[[], None]
) -> list[Configuration]:
    """Configurations that fit in ``memory_limit`` bytes, fastest first.

    Omits configurations that change more settings than a faster one. Calls ``tick`` after each candidate.
    """
    found = []
    for changes in variants(recipe):
        best = _best(recipe, changes, device, memory_limit, tokens)
        found += [] if best is None else [best]
        tick()
    kept: list[Configuration] = []
    for each in sorted(found, key=lambda each: each.seconds):
        if not any(set(faster.settings) <= set(each.settings) for faster in kept):
            kept.append(each)
    return kept


def variants(recipe: Recipe) -> list[Changes]:
    """The changes to try: none, checkpointing, and frozen weights in 16 and in 4 bits."""
    kept: list[Changes] = [{}]
    is_single = any(
        section.model_dump()["dtype"] == "float32" for section in (recipe.language, recipe.vision)
    )
    if recipe.training.precision == "bfloat16" and is_single:
        kept.append(HALVED)
    language = recipe.language.model_dump()
    if language["quantize"] is None and find_gguf(language["source"], language["revision"]) is None:
        kept.append({**kept[-1], "language": {**kept[-1].get("language", {}), "quantize": "4bit"}})
    vision = recipe.vision.model_dump()
    is_file = find_single_file(vision["source"], vision["revision"]) is not None
    if vision.get("quantize", "") is None and not (is_file and vision["source"].lower().endswith(GGUF)):
        kept.append({**kept[-1], "vision": {**kept[-1].get("vision", {}), "quantize": "4bit"}})
    if recipe.training.checkpointing:
        return kept
    return [*kept, *({**each, "training": {"checkpointing": True}} for each in kept)]


def _best(
    recipe: Recipe, changes: Changes, device: Device, memory_limit: float, tokens: int | None
) -> Configuration | None:
    """Find the largest batch of a variant that fits and divides the images per step."""
    variant = with_changes(recipe, changes)
    bridge = build_meta_bridge(variant)
    one, two = (estimate_costs(variant, bridge, batch, tokens, device.type) for batch in (1, 2))
    pictures = recipe.training.batch * recipe.training.accumulate
    for batch in range(pictures, 0, -1):
        line = one.memory.total + (batch - 1) * (two.memory.total - one.memory.total)
        if pictures % batch or line > memory_limit:
            continue
        passes = pictures // batch
        sized = with_changes(variant, {"training": {"batch": batch, "accumulate": passes}})
        found = estimate_costs(sized, bridge, batch, tokens, device.type)
        if found.memory.total > memory_limit:
            continue
        added = {**changes, "training": {**changes.get("training", {}), **_sizes(recipe, batch)}}
        return Configuration(
            settings=_as_settings(added),
            batch=batch,
            accumulate=passes,
            memory=found.memory.total,
            seconds=found.step_seconds(sized, device),
        )
    return None


def _sizes(recipe: Recipe, batch: int) -> dict[str, int]:
    settings = recipe.training
    if batch == settings.batch:
        return {}
    return {"batch": batch, "accumulate": settings.batch * settings.accumulate // batch}


def _as_settings(changes: Changes) -> tuple[str, ...]:
    """Format changes as command-line settings."""
    return tuple(
        f"{section}.{name}={str(value).lower()}"
        for section, fields in changes.items()
        for name, value in fields.items()
    )
