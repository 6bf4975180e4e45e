"""Builds a recipe's bridge on the meta device, with the shapes and dtypes of its weights but no values.

Reads only configurations (JSON files for a hub id), so that a model of 7 billion weights needs neither memory
nor a download. Accounts for quantisation afterwards, because its library needs a GPU. Ignores
machine-dependent settings (`training.compile`, `training.attention`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lavibridge.bridge import Bridge
from lavibridge.recipes.recipe import Recipe, make_recipe
from lavibridge.training.build_bridge import build_bridge
from lavibridge.training.loop import training_mode

VISION_PARTS = ("denoiser", "autoencoder")
"""Names of the parts of a bridge's vision model."""
BITS: Mapping[str | None, float] = {"8bit": 8.0, "4bit": 4.5}
"""Bits per weight of a linear layer: with 4 bits, 64 weights share a 32-bit scale (bitsandbytes)."""


@dataclass(frozen=True, kw_only=True)
class ModelPart:
    """A part of the bridge."""

    name: str
    trained: int
    """Number of trained weights, in float32."""
    frozen: int
    """Number of frozen weights."""
    bytes: int
    """Bytes of all its weights."""


def build_meta_bridge(recipe: Recipe) -> Bridge:
    """Build the recipe's bridge on the meta device, in training mode."""
    plain: dict[str, dict[str, Any]] = {
        "language": {"quantize": None},
        "training": {"compile": None, "attention": "auto"},
    }
    bridge = build_bridge(with_changes(recipe, plain), torch.device("meta"))
    bridge.to("meta")
    training_mode(bridge)
    return bridge


def with_changes(recipe: Recipe, changes: Mapping[str, Mapping[str, Any]]) -> Recipe:
    """Return the recipe with some fields of some sections changed, and validate it again."""
    content = recipe.model_dump()
    return make_recipe(content | {name: content[name] | dict(fields) for name, fields in changes.items()})


def model_parts(bridge: Bridge, quantize: str | None) -> tuple[ModelPart, ...]:
    """The parts of the bridge, with the language model quantised as in ``language.quantize``."""
    vision = bridge.vision.get_submodule("backbone")
    rest = [value for name, value in bridge.vision.named_parameters() if not name.startswith("backbone.")]
    return (
        model_part("language model", bridge.language.parameters(), _saved(bridge.language, quantize)),
        model_part("connector", bridge.connector.parameters()),
        model_part(VISION_PARTS[0], vision.parameters()),
        model_part(VISION_PARTS[1], rest),
    )


def model_part(name: str, weights: Iterable[nn.Parameter], saved: int = 0) -> ModelPart:
    """Describe a part with these weights; quantisation reduces its size by ``saved`` bytes."""
    every = list(weights)
    return ModelPart(
        name=name,
        trained=sum(weight.numel() for weight in every if weight.requires_grad),
        frozen=sum(weight.numel() for weight in every if not weight.requires_grad),
        bytes=sum(weight.numel() * weight.element_size() for weight in every) - saved,
    )


def _saved(module: nn.Module, quantize: str | None) -> int:
    """Bytes that quantisation saves on linear layers; it does not change embeddings and norms."""
    if quantize is None:
        return 0
    linears = [layer.weight for layer in module.modules() if isinstance(layer, nn.Linear)]
    linears = [weight for weight in linears if not weight.requires_grad]  # LoRA is not quantised
    return sum(int(weight.numel() * (weight.element_size() - BITS[quantize] / 8)) for weight in linears)
