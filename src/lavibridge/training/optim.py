"""The optimiser by name, with a group for each trained part, and rates that are a function of the step.

    warm-up   rate * (step + 1) / warmup
    then      constant: rate      cosine: rate * (1 + cos(pi * done)) / 2, done from 0 to 1

With a limit in minutes, `done` follows whichever is nearer its end, the steps or the clock, so that the
anneal is finished when training is, on a fast machine and on a slow one.

Loshchilov and Hutter 2017 (AdamW), arXiv 1711.05101; Dettmers et al. 2021 (8 bits), arXiv 2110.02861; Jordan
et al. 2024 (Muon, core/muon.py).
"""

import math
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from lavibridge.bridge import PUBLISHED_LR
from lavibridge.core.errors import RecipeError
from lavibridge.core.muon import Muon
from lavibridge.recipes.training import LearningRates, Training

NUMBER = "number"
"""Marks what is no tensor in an optimiser's state."""

Parts = Mapping[str, Mapping[str, nn.Parameter]]


def published_rates(kind: str, given: LearningRates) -> dict[str, float]:
    """The rate of each part: the given one, else the published one for the kind of vision model."""
    published = PUBLISHED_LR.get(kind, PUBLISHED_LR["sd"])
    chosen = given.model_dump()
    return {part: rate if chosen[part] is None else chosen[part] for part, rate in published.items()}


def make_optimizer(
    parts: Parts, rates: Mapping[str, float], weight_decay: float, kind: str = "adamw"
) -> torch.optim.Optimizer:
    """The optimiser `training.optimizer` names, over the trained parts that are there."""
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
    if kind == "adamw8bit":
        return _eight_bits(groups, weight_decay)
    if kind == "muon":
        return Muon(groups, weight_decay=weight_decay)
    devices = {parameter.device.type for group in groups for parameter in group["params"]}
    # One kernel for hundreds of small LoRA matrices, instead of a loop over them in Python.
    return torch.optim.AdamW(groups, weight_decay=weight_decay, fused=devices <= {"cpu", "cuda"})


def _eight_bits(groups: list[dict[str, Any]], weight_decay: float) -> torch.optim.Optimizer:
    if find_spec("bitsandbytes") is None:
        raise RecipeError(
            "training.optimizer: adamw8bit needs bitsandbytes, which is not installed: "
            "pip install 'lavibridge[quantize]'; or choose adamw"
        )
    library = import_module("bitsandbytes")
    made: torch.optim.Optimizer = library.optim.AdamW8bit(groups, weight_decay=weight_decay)
    return made


def optimizer_tensors(optimizer: torch.optim.Optimizer, parts: Parts) -> dict[str, Tensor]:
    """Copies, on the CPU, of all that the optimiser remembers, as `part/name/key`, whatever its kind."""
    kept: dict[str, Tensor] = {}
    for part, parameters in parts.items():
        for name, parameter in parameters.items():
            for key, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    kept[f"{part}/{name}/{key}"] = value.detach().cpu().clone()
                else:
                    kept[f"{part}/{name}/{key}/{NUMBER}"] = torch.tensor(value)
    return kept


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, parts: Parts, kept: Mapping[str, Tensor]
) -> None:
    """Put back what `optimizer_tensors` gave: by name, so that no order of weights is relied upon."""
    remembered: dict[str, dict[str, Any]] = {}
    for path, value in kept.items():
        above, key = path.rsplit("/", 1)
        if key == NUMBER:
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


def set_rates(
    optimizer: torch.optim.Optimizer, settings: Training, step: int, clock: float
) -> dict[str, float]:
    """Set and return each part's rate for a step; `clock` is the share of the minutes that is used up."""
    share = scale(settings, step, clock)
    for group in optimizer.param_groups:
        group["lr"] = group["rate"] * share
    return {group["part"]: group["lr"] for group in optimizer.param_groups}


def scale(settings: Training, step: int, clock: float = 0.0) -> float:
    """The share of the full rate at a step, counted from 0."""
    rise = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    if settings.schedule == "constant":
        return rise
    by_steps = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    done = min(1.0, max(0.0, by_steps, clock))
    return rise * (1 + math.cos(math.pi * done)) / 2
