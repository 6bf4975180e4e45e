"""Builds the parts of a session from a recipe, in each process: bridge, state, data loader, validator."""

import torch

from lavibridge.bridge import Bridge
from lavibridge.data.base import Dataset
from lavibridge.recipes.recipe import Recipe
from lavibridge.training.alignment.objective import needs_vision_weights
from lavibridge.training.build_bridge import build_bridge, move_bridge
from lavibridge.training.cache.caches import open_caches
from lavibridge.training.data.batches import BatchLoader, PrefetchLoader
from lavibridge.training.distributed.processes import Processes
from lavibridge.training.distributed.sharding import shard_bridge
from lavibridge.training.ema import Ema
from lavibridge.training.loop import TrainingState
from lavibridge.training.objectives.teacher import Teacher
from lavibridge.training.optimization import make_optimizer, recipe_learning_rates
from lavibridge.training.reporting.console import print_line
from lavibridge.training.start_weights import load_start_weights
from lavibridge.training.validation import Validator


def assemble_bridge(recipe: Recipe, processes: Processes, *, is_new: bool = True) -> Bridge:
    """Build the bridge on this process's device, with sharded frozen weights if the recipe asks.

    A new run has the weights of `training.start`, if there are any; a checkpoint loads its own later. An
    alignment that never calls the denoiser does not load the vision model's weights.
    """
    bridge = build_bridge(
        recipe, vision_device=None if needs_vision_weights(recipe) else torch.device("meta")
    )
    if is_new and recipe.training.start is not None:
        load_start_weights(bridge, recipe.training.start)
    teacher = recipe.training.teacher
    bridge.distilled_guidance_scale = (
        teacher.guidance if teacher is not None and teacher.guidance != 1 else None
    )
    bridge.vision.set_memory_format(processes.device, is_trained=True)
    if recipe.training.sharding is not None:
        if processes.count > 1:
            shard_bridge(bridge, processes.device, processes.count)
        else:
            print_line(
                "note: training.sharding has no effect on one process; see docs/guides/scale.md for several"
            )
    return move_bridge(bridge, processes.device)


def assemble_state(recipe: Recipe, bridge: Bridge, processes: Processes) -> TrainingState:
    """Build the state at step 0: the wrapped bridge, its optimiser and the average of its weights."""
    settings = recipe.training
    parts = bridge.trained_parameters()
    trained = [part for part, weights in parts.items() if weights]
    rates = recipe_learning_rates(recipe, trained)
    weights = [parameter for part in parts.values() for parameter in part.values()]
    return TrainingState(
        bridge=bridge,
        model=processes.wrap(bridge),
        parts=parts,
        optimizer=make_optimizer(parts, rates, settings.weight_decay, settings.optimizer),
        ema=None if settings.ema is None else Ema(weights, settings.ema),
        teacher=None
        if settings.teacher is None
        else Teacher(bridge, settings.teacher.guidance, settings.precision == "bfloat16"),
        backward=processes.backward,
        no_sync=processes.no_sync,
        any_process=processes.any,
        gather=processes.gather,
    )


def loader_class(device: torch.device, workers: int) -> type[BatchLoader]:
    """Choose the class of the data loader for a vision model on this device.

    On a GPU the loader prefetches. On a CPU a thread that encodes the next images would compete with the step
    for the cores: the quickstart's steps took a quarter longer with it (LOG.md, 2026-11-30).
    """
    return PrefetchLoader if workers and device.type != "cpu" else BatchLoader


def assemble_loader(recipe: Recipe, bridge: Bridge, dataset: Dataset, processes: Processes) -> BatchLoader:
    """Build the loop's data loader."""
    side = recipe.data.size or bridge.vision.default_size
    kind = loader_class(bridge.vision.alphas.device, recipe.training.workers)
    caches = open_caches(bridge, dataset, recipe.training)
    place = (processes.index, processes.count)
    return kind(dataset, bridge.vision, recipe.training, (side, side), *place, caches)


def assemble_validator(
    recipe: Recipe, bridge: Bridge, held_out: Dataset | None, processes: Processes
) -> Validator | None:
    """Build the validator for the held-out samples, if there are any."""
    if held_out is None:
        return None
    side = recipe.data.size or bridge.vision.default_size
    place = (processes.index, processes.count)
    return Validator(held_out, bridge.vision, recipe.training, (side, side), *place)
