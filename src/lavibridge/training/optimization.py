"""The optimiser over the trained parts, its state by name, and its learning rates by step.

    warm-up   rate * (step + 1) / warmup
    then      constant: rate      cosine: rate * (1 + cos(pi * done)) / 2, done from 0 to 1

With a limit in minutes, `done` follows the steps or the clock, whichever is nearer its end, so that the
learning rate reaches 0 when training ends, on a fast machine and on a slow one.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lavibridge.core import registry
from lavibridge.core.config import Config
from lavibridge.core.errors import RecipeError
from lavibridge.optimizers.base import OptimizerFactory
from lavibridge.recipes.recipe import Recipe
from lavibridge.recipes.sections import component_of_section, kind_of_section, read_kind_section
from lavibridge.recipes.training_section import OPTIMIZERS, LearningRateSection, TrainingSection

_NUMBER = "number"
"""Marks numbers, as opposed to tensors, in an optimiser's state."""
_ADAMW = read_kind_section(OPTIMIZERS, "adamw")

TrainedWeights = Mapping[str, Mapping[str, nn.Parameter]]


def check_learning_rates(recipe: Recipe) -> None:
    """Raise RecipeError if a part that the recipe trains has no learning rate. Loads no weights."""
    loras = {"language_lora": recipe.lora.language, "vision_lora": recipe.lora.vision}
    trained = [part for part, lora in loras.items() if lora is not None]
    recipe_learning_rates(recipe, ("connector", *trained))


def recipe_learning_rates(recipe: Recipe, parts: Iterable[str]) -> dict[str, float]:
    """Return each part's learning rate; 0 for all if the recipe takes no training step.

    A recipe of `training.steps: 0` only aligns, and its alignment has a rate of its own. Raises RecipeError
    if a training step needs a rate that neither the recipe nor the vision family has.
    """
    if recipe.training.steps == 0:
        return dict.fromkeys(parts, 0.0)
    return learning_rates(kind_of_section(recipe.vision), recipe.training.lr, parts)


def learning_rates(vision: str, configured: LearningRateSection, parts: Iterable[str]) -> dict[str, float]:
    """Return each part's learning rate: the configured one, or else the published one of the vision family.

    ``vision`` is the family's kind. Raises RecipeError if a part has neither.
    """
    published = registry.load_kind("vision", vision).published_lr
    rates = {part: getattr(configured, part) for part in parts}
    rates = {part: published.get(part) if rate is None else rate for part, rate in rates.items()}
    missing = [f"training.lr.{part}" for part, rate in rates.items() if rate is None]
    if missing:
        raise RecipeError(
            f"{' and '.join(missing)}: the recipe sets no learning rate, and none is published for vision "
            f"models of kind '{vision}': set one, such as {missing[0]}=1e-4, and check the first losses"
        )
    return {part: float(rate) for part, rate in rates.items()}


def make_optimizer(
    parts: TrainedWeights, rates: Mapping[str, float], weight_decay: float, settings: Config = _ADAMW
) -> torch.optim.Optimizer:
    """Make the optimiser of ``settings`` with one group for each trained part.

    Raises RecipeError if no part is trained.
    """
    groups: list[dict[str, Any]] = [
        {"params": list(parameters.values()), "lr": rates[part], "rate": rates[part], "part": part}
        for part, parameters in parts.items()
        if parameters
    ]
    if not groups:
        raise RecipeError(
            "nothing is trained: the connector has no weights and neither model has LoRA; "
            "set lora.language or lora.vision, or choose another connector"
        )
    factory: OptimizerFactory = component_of_section(OPTIMIZERS, settings)
    return factory.build(groups, weight_decay)


def optimizer_tensors(optimizer: torch.optim.Optimizer, parts: TrainedWeights) -> dict[str, Tensor]:
    """Copy the state of an optimiser of any kind to the CPU, as `part/name/key`."""
    kept: dict[str, Tensor] = {}
    for part, parameters in parts.items():
        for name, parameter in parameters.items():
            for key, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    kept[f"{part}/{name}/{key}"] = value.detach().cpu().clone()
                else:
                    kept[f"{part}/{name}/{key}/{_NUMBER}"] = torch.tensor(value)
    return kept


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, parts: TrainedWeights, kept: Mapping[str, Tensor]
) -> None:
    """Restore the state from `optimizer_tensors`, by name and so independent of the order of weights."""
    remembered: dict[str, dict[str, Any]] = {}
    for path, value in kept.items():
        above, key = path.rsplit("/", 1)
        if key == _NUMBER:
            above, key = above.rsplit("/", 1)
            remembered.setdefault(above, {})[key] = value.item()
        else:
            remembered.setdefault(above, {})[key] = value
    names = {id(p): f"{part}/{name}" for part, weights in parts.items() for name, p in weights.items()}
    state = optimizer.state_dict()
    places = [number for group in state["param_groups"] for number in group["params"]]
    weights = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state["state"] = {
        place: remembered[names[id(weight)]]
        for place, weight in zip(places, weights, strict=True)
        if names[id(weight)] in remembered
    }
    optimizer.load_state_dict(state)


def set_learning_rates(
    optimizer: torch.optim.Optimizer, settings: TrainingSection, step: int, clock: float
) -> dict[str, float]:
    """Set and return each part's learning rate; ``clock`` is the elapsed share of the time limit."""
    share = learning_rate_scale(settings, step, clock)
    for group in optimizer.param_groups:
        group["lr"] = group["rate"] * share
    return {group["part"]: group["lr"] for group in optimizer.param_groups}


def learning_rate_scale(settings: TrainingSection, step: int, clock: float = 0.0) -> float:
    """The learning rate at a step, counted from 0, as a share of the full rate."""
    rise = linear_warmup(step, settings.warmup)
    if settings.schedule == "constant":
        return rise
    by_steps = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return rise * half_cosine(max(by_steps, clock))


def linear_warmup(step: int, warmup: int) -> float:
    """A linear rise over ``warmup`` steps, to 1."""
    return min(1.0, (step + 1) / warmup) if warmup else 1.0


def half_cosine(done: float) -> float:
    """A half cosine that falls from 1 at ``done`` = 0 to 0 at ``done`` = 1, and is constant outside."""
    return (1 + math.cos(math.pi * min(1.0, max(0.0, done)))) / 2
