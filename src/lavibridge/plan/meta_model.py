"""Builds a recipe's bridge on the meta device, with the shapes and dtypes of its weights but no values.

Reads only configurations (JSON files for a hub id), so that a model of 7 billion weights needs neither memory
nor a download. Accounts for quantisation afterwards, because its library needs a GPU. Ignores
machine-dependent settings (`training.compile`, `training.attention`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lavibridge.bridge import Bridge
from lavibridge.core.gguf_file import read_gguf_header
from lavibridge.core.placement import BITS_PER_WEIGHT, Quantization
from lavibridge.core.sources import find_single_file
from lavibridge.recipes.recipe import Recipe, make_recipe
from lavibridge.training.build_bridge import build_bridge
from lavibridge.training.loop import training_mode
from lavibridge.vision.base import VisionModel

LANGUAGE_PART = "language model"
"""Name of the language model in a plan."""
VISION_PARTS = ("denoiser", "autoencoder")
"""Names of the parts of a bridge's vision model."""


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
        "vision": {"quantize": None},
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


def model_parts(
    bridge: Bridge, language_bits: Quantization | None = None, vision_bits: Quantization | None = None
) -> tuple[ModelPart, ...]:
    """The parts of a meta bridge, quantised as in ``language.quantize`` and ``vision.quantize``."""
    vision = bridge.vision.get_submodule("backbone")
    rest = [value for name, value in bridge.vision.named_parameters() if not name.startswith("backbone.")]
    saved = _saved_by_gguf(bridge.vision) or _saved(vision, vision_bits)
    return (
        model_part(LANGUAGE_PART, bridge.language.parameters(), _saved(bridge.language, language_bits)),
        model_part("connector", bridge.connector.parameters()),
        model_part(VISION_PARTS[0], vision.parameters(), saved),
        model_part(VISION_PARTS[1], rest),
    )


def largest_unpacked_layer(
    bridge: Bridge, language_bits: Quantization | None, vision_bits: Quantization | None
) -> int:
    """Bytes of the largest layer of quantised weights, which a pass unpacks one at a time."""
    is_gguf = bridge.vision.placement.quantize == "gguf"
    layers = _quantizable(bridge.language) if language_bits is not None else []
    layers += _quantizable(bridge.vision.backbone) if vision_bits is not None or is_gguf else []
    return max((weight.numel() * weight.element_size() for weight in layers), default=0)


def offloaded_bytes(bridge: Bridge, parts: Sequence[ModelPart]) -> int:
    """Bytes of the weights that lie in files while an offloaded denoiser runs its largest block."""
    network = bridge.vision.get_submodule("backbone")
    blocks = [block for part in network.children() if isinstance(part, nn.ModuleList) for block in part]
    sizes = [sum(weight.nbytes for weight in block.parameters()) for block in blocks]
    every = sum(weight.nbytes for weight in network.parameters())
    denoiser = next(part.bytes for part in parts if part.name == VISION_PARTS[0])
    return denoiser * (sum(sizes) - max(sizes, default=0)) // every


def model_part(name: str, weights: Iterable[nn.Parameter], saved: int = 0) -> ModelPart:
    """Describe a part with these weights; quantisation reduces its size by ``saved`` bytes."""
    every = list(weights)
    return ModelPart(
        name=name,
        trained=sum(weight.numel() for weight in every if weight.requires_grad),
        frozen=sum(weight.numel() for weight in every if not weight.requires_grad),
        bytes=sum(weight.numel() * weight.element_size() for weight in every) - saved,
    )


def _saved(module: nn.Module, bits: Quantization | None) -> int:
    """Bytes that quantisation saves on linear layers; it does not change embeddings and norms."""
    if bits is None:
        return 0
    packed = BITS_PER_WEIGHT[bits] / 8
    return sum(int(weight.numel() * (weight.element_size() - packed)) for weight in _quantizable(module))


def _saved_by_gguf(vision: VisionModel) -> int:
    """Bytes that a GGUF file saves, whose blocks stay in memory as they are."""
    if vision.placement.quantize != "gguf":
        return 0
    file = find_single_file(vision.config.source, vision.config.revision)
    assert file is not None  # the placement says so
    whole = [weight for weight in vision.backbone.parameters() if not weight.requires_grad]
    packed = sum(each.size for each in read_gguf_header(file).tensors.values())
    return sum(weight.numel() * weight.element_size() for weight in whole) - packed


def _quantizable(module: nn.Module) -> list[Tensor]:
    """Weights of frozen linear layers; LoRA is not quantised."""
    weights = [layer.weight for layer in module.modules() if isinstance(layer, nn.Linear)]
    return [weight for weight in weights if not weight.requires_grad]
