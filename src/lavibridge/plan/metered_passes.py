"""Meters real passes on the meta device: a training pass, encoding images, and generating an image.

Assumes that every caption has ``tokens`` tokens, because padding costs as much as text and the longest
caption of a batch determines the length.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lavibridge.bridge import Bridge
from lavibridge.core.contracts import Batch
from lavibridge.plan.device_emulation import DeviceEmulation
from lavibridge.plan.meta_values import MetaValues
from lavibridge.plan.meter import Meter, Operation
from lavibridge.recipes.recipe import Recipe
from lavibridge.recipes.sections import component_of_section
from lavibridge.recipes.training_section import WEIGHTING
from lavibridge.training.cache.features import features_refusal
from lavibridge.training.data.batches import TrainingPass
from lavibridge.training.loop import training_mode


@dataclass(frozen=True, kw_only=True)
class PassCost:
    """The operations of a pass, and its peak bytes beyond the weights, including gradients."""

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
    training_mode(bridge)
    draw = unknown_draw(bridge, recipe, batch, tokens)
    latents, prompts = draw.batch.latents, draw.batch.prompts
    _clear(bridge)
    if settings.accumulate > 1:  # gradients of earlier passes of the step
        for weight in bridge.parameters():
            weight.grad = torch.zeros_like(weight) if weight.requires_grad else None
    with MetaValues():
        # Reading a cache is not part of the pass.
        features = bridge.features(prompts) if keeps_features(bridge, recipe) else None
        sample = Batch(prompts=prompts, names=prompts, latents=latents, features=features)
        meter = Meter([*bridge.parameters(), *bridge.buffers(), latents, draw.t])
        gradient_bytes = sum(4 * weight.numel() for weight in bridge.parameters() if weight.grad is not None)
        emulated = DeviceEmulation(type, number_format(recipe))
        with meter, emulated:
            with meter.during("rest of the forward pass"), _named(bridge, meter):
                loss = bridge(sample, draw.t, torch.empty_like(latents), weighting).mean()
            emulated.casts.clear()
            with meter.during("backward pass"):
                run_backward(loss)
    _clear(bridge)
    return PassCost(operations=tuple(meter.work), peak=meter.peak + gradient_bytes)


def encoding_pass(bridge: Bridge, recipe: Recipe, batch: int) -> PassCost:
    """Meter the encoding of ``batch`` images."""
    side = recipe.data.size or bridge.vision.default_size
    images = torch.empty(batch, 3, side, side, device="meta")
    with MetaValues(), metering([bridge], [images], "cpu") as meter, meter.during("autoencoder"):
        bridge.vision.encode_moments(images)
    found = cost_of(meter)
    return replace(found, peak=found.peak + images.numel() * images.element_size())


def drawing_pass(bridge: Bridge, recipe: Recipe, tokens: int | None, type: str) -> PassCost:
    """Meter one guided step of one image, and its decoding, on a device of ``type``."""
    draw = unknown_draw(bridge, recipe, 2, tokens)
    latents, vision = draw.batch.latents, bridge.vision
    precision = number_format(recipe)
    with MetaValues(), metering([bridge], [latents, draw.t], type, precision) as meter, torch.no_grad():
        with meter.during("denoiser"):
            times = vision.times[draw.t]
            vision.predict(latents, times, bridge.condition(draw.batch.prompts, times))
        with meter.during("autoencoder"):
            vision.decode(latents[:1])
    return cost_of(meter)


@contextmanager
def metering(
    modules: Iterable[nn.Module],
    inputs: Iterable[Tensor],
    type: str,
    precision: torch.dtype | None = None,
) -> Iterator[Meter]:
    """Meter the block on a device of ``type``; its memory excludes ``inputs`` and weights of ``modules``."""
    weights = [each for module in modules for each in (*module.parameters(), *module.buffers())]
    meter = Meter([*weights, *inputs])
    with meter, DeviceEmulation(type, precision):
        yield meter


def cost_of(meter: Meter) -> PassCost:
    """Return a meter's counts."""
    return PassCost(operations=tuple(meter.work), peak=meter.peak)


def number_format(recipe: Recipe) -> torch.dtype | None:
    """The format that autocast computes in, or None."""
    return torch.bfloat16 if recipe.training.precision == "bfloat16" else None


def unknown_draw(bridge: Bridge, recipe: Recipe, batch: int, tokens: int | None) -> TrainingPass:
    """Make a pass of ``batch`` captions of ``tokens`` tokens; latents, noise and times have no values."""
    side = recipe.data.size or bridge.vision.default_size
    shape = bridge.vision.latent_shape(side, side)
    latents, noise = (torch.empty(batch, *shape, device="meta") for _ in range(2))
    prompts = (caption(bridge, tokens),) * batch
    return TrainingPass(
        batch=Batch(prompts=prompts, names=prompts, latents=latents),
        t=torch.empty(batch, dtype=torch.long, device="meta"),
        noise=noise,
    )


def feature_numbers(bridge: Bridge, tokens: int | None) -> int:
    """Number of values that a feature cache stores for a caption of ``tokens`` tokens."""
    with MetaValues():
        features = bridge.features([caption(bridge, tokens)])
    kept = (features.hidden, features.context_free, features.pooled, features.passthrough_tokens)
    return sum(value.numel() for value in kept if value is not None)


def latent_numbers(bridge: Bridge, recipe: Recipe) -> int:
    """Number of values per latent."""
    side = recipe.data.size or bridge.vision.default_size
    channels, height, width = bridge.vision.latent_shape(side, side)
    return channels * height * width


def metered_caption_tokens(bridge: Bridge, tokens: int | None) -> int:
    """Tokens per caption, including special tokens."""
    return bridge.language.count_tokens([caption(bridge, tokens)])[0][0]


def caption(bridge: Bridge, tokens: int | None) -> str:
    """Make a caption of ``tokens`` tokens; the meta bridge's tokenizer makes one per letter."""
    length = bridge.language.max_tokens if tokens is None else tokens
    own = bridge.language.count_tokens([""])[0][0]
    return "a" * max(1, min(length, bridge.language.max_tokens) - own)


def keeps_features(bridge: Bridge, recipe: Recipe) -> bool:
    """Whether a cache provides the language model's features."""
    settings = recipe.training
    is_enabled = settings.feature_cache_gb > 0 if settings.cache is None else settings.cache.features
    return is_enabled and features_refusal(bridge) is None


def run_backward(loss: Tensor, weights: tuple[nn.Parameter, ...] = ()) -> None:
    """Run the autograd engine directly, because `loss.backward()` would leave the mode during recomputation.

    Computes gradients of ``weights`` and drops them, or accumulates those of all weights if none are given.
    """
    torch.autograd.graph._engine_run_backward(
        (loss,),
        (torch.ones_like(loss),),
        False,
        False,
        weights,
        allow_unreachable=True,
        accumulate_grad=not weights,
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
