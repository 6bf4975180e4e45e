"""Meters real training passes on the meta device: one forward and backward pass, one encoding pass.

Assumes that every caption has ``tokens`` tokens, since padding costs as much as text and the longest caption
of a batch sets the length.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from lavibridge.bridge import Bridge
from lavibridge.core.contracts import Batch
from lavibridge.plan.device_emulation import DeviceEmulation
from lavibridge.plan.meter import Meter, Operation
from lavibridge.recipes.recipe import Recipe
from lavibridge.recipes.sections import component_of_section
from lavibridge.recipes.training_section import WEIGHTING
from lavibridge.training.cache.features import refusal


@dataclass(frozen=True, kw_only=True)
class PassCost:
    """The operations of a pass, and its peak bytes beyond the weights, gradients included."""

    operations: tuple[Operation, ...]
    peak: int

    def flops(self, part: str | None = None) -> int:
        """Floating-point operations, with a multiply-add counted as two."""
        return sum(each.flops for each in self.operations if part in (None, each.part))

    def names(self) -> list[str]:
        """The parts of the pass, in order."""
        return list(dict.fromkeys(each.part for each in self.operations))


def training_pass(bridge: Bridge, recipe: Recipe, batch: int, tokens: int | None, type: str) -> PassCost:
    """Meter a forward and backward pass of ``batch`` cached latents on a device of ``type``."""
    settings = recipe.training
    weighting = component_of_section(WEIGHTING, settings.weighting)
    latents, t = _inputs(bridge, recipe, batch)
    prompts = (_prompt(bridge, tokens),) * batch
    with Meter([]):  # reading a cache is not part of the pass
        features = bridge.features(prompts) if _keeps_features(bridge, recipe) else None
    sample = Batch(prompts=prompts, names=prompts, latents=latents, features=features)
    half = torch.bfloat16 if settings.precision == "bfloat16" else None
    _clear(bridge)
    if settings.accumulate > 1:  # gradients of earlier passes of the step
        for weight in bridge.parameters():
            weight.grad = torch.zeros_like(weight) if weight.requires_grad else None
    meter = Meter([*bridge.parameters(), *bridge.buffers(), latents, t])
    gradient_bytes = sum(4 * weight.numel() for weight in bridge.parameters() if weight.grad is not None)
    emulated = DeviceEmulation(type, half)
    with meter, emulated:
        with meter.during("rest of the forward pass"), _named(bridge, meter):
            loss = bridge(sample, t, torch.empty_like(latents), weighting).mean()
        emulated.casts.clear()
        with meter.during("backward pass"):
            _backward(loss)
    _clear(bridge)
    return PassCost(operations=tuple(meter.work), peak=meter.peak + gradient_bytes)


def encoding_pass(bridge: Bridge, recipe: Recipe, batch: int) -> PassCost:
    """Meter the encoding of ``batch`` pictures."""
    side = recipe.data.size or bridge.vision.default_size
    images = torch.empty(batch, 3, side, side, device="meta")
    meter = Meter([*bridge.parameters(), *bridge.buffers()])
    with meter, meter.during("autoencoder"), DeviceEmulation("cpu", None):
        bridge.vision.encode_moments(images)
    size = images.numel() * images.element_size()
    return PassCost(operations=tuple(meter.work), peak=meter.peak + size)


def _keeps_features(bridge: Bridge, recipe: Recipe) -> bool:
    """Whether a cache provides the language model's features."""
    settings = recipe.training
    is_enabled = settings.feature_cache_gb > 0 if settings.cache is None else settings.cache.features
    return is_enabled and refusal(bridge) is None


def feature_numbers(bridge: Bridge, tokens: int | None) -> int:
    """Numbers that a feature cache stores for a caption of ``tokens`` tokens."""
    with Meter([]):
        features = bridge.features([_prompt(bridge, tokens)])
    kept = (features.hidden, features.context_free, features.pooled, features.passthrough_tokens)
    return sum(value.numel() for value in kept if value is not None)


def latent_numbers(bridge: Bridge, recipe: Recipe) -> int:
    """Numbers per latent."""
    side = recipe.data.size or bridge.vision.default_size
    channels, height, width = bridge.vision.latent_shape(side, side)
    return channels * height * width


def caption_tokens(bridge: Bridge, tokens: int | None) -> int:
    """Tokens per caption, special tokens included."""
    return bridge.language.count_tokens([_prompt(bridge, tokens)])[0][0]


def _inputs(bridge: Bridge, recipe: Recipe, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    side = recipe.data.size or bridge.vision.default_size
    shape = bridge.vision.latent_shape(side, side)
    latents = torch.empty(batch, *shape, device="meta")
    return latents, torch.empty(batch, dtype=torch.long, device="meta")


def _prompt(bridge: Bridge, tokens: int | None) -> str:
    """A prompt of ``tokens`` tokens; the meta bridge's tokenizer makes one per letter."""
    length = bridge.language.max_tokens if tokens is None else tokens
    own = bridge.language.count_tokens([""])[0][0]
    return "a" * max(1, min(length, bridge.language.max_tokens) - own)


def _backward(loss: torch.Tensor) -> None:
    """Run the autograd engine directly, since `loss.backward()` would leave the mode during recomputation."""
    torch.autograd.graph._engine_run_backward(
        (loss,), (torch.ones_like(loss),), False, False, (), allow_unreachable=True, accumulate_grad=True
    )


def _clear(bridge: Bridge) -> None:
    for weight in bridge.parameters():
        weight.grad = None


@contextmanager
def _named(bridge: Bridge, meter: Meter) -> Iterator[None]:
    """Attribute the operations of each part's forward pass to that part."""
    parts: dict[str, nn.Module] = {
        "language model": bridge.language.backbone,
        "connector": bridge.connector,
        "denoiser": bridge.vision.backbone,
    }
    handles = []
    for name, module in parts.items():
        handles.append(module.register_forward_pre_hook(partial(_enter, meter, name)))
        handles.append(module.register_forward_hook(partial(_leave, meter, meter.part)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _enter(meter: Meter, name: str, *_: Any) -> None:
    meter.part = name


def _leave(meter: Meter, name: str, *_: Any) -> None:
    meter.part = name
