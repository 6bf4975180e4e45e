"""Builds the bridge that training starts from."""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from jaxtyping import Float
from torch import Tensor

from lavibridge.bridge import Bridge
from lavibridge.bridge.choices import model_of_choice
from lavibridge.data.base import Dataset
from lavibridge.recipes.recipe import Recipe

_CALIBRATED_ON = 256
"""Number of captions to whose features a connector fits its first weights."""
_FAR = 20.0
"""Factor by which the conditioning's scale may differ from the trained one before a warning."""


def build_bridge(
    recipe: Recipe, device: torch.device | None = None, vision_device: torch.device | None = None
) -> Bridge:
    """Build the untrained bridge of a recipe; `training.seed` determines its weights.

    On the meta ``device`` it has shapes but no values, and no weights are read. The meta
    ``vision_device`` leaves out the weights of the vision model alone.
    """
    settings = recipe.training
    with torch.random.fork_rng(devices=[]), device or nullcontext():
        torch.manual_seed(settings.seed)
        bridge = Bridge.compose(
            language=model_of_choice("language", recipe.language.model_dump(), device),
            vision=model_of_choice("vision", recipe.vision.model_dump(), vision_device or device),
            connector=recipe.connector.model_dump(),
            language_lora=recipe.lora.language,
            vision_lora=recipe.lora.vision,
        )
    models = (bridge.language, bridge.vision)
    for model in models:
        if settings.attention != "auto":
            model.set_attention_backend(settings.attention)
        if settings.compile is not None:
            model.compile_blocks(settings.compile)
    if settings.checkpointing:
        for model in models if bridge.learns_through_language else models[1:]:
            model.enable_gradient_checkpointing()
    return bridge


def move_bridge(bridge: Bridge, device: torch.device) -> Bridge:
    """Move a bridge to a device. A vision model without weights stays, but for its noise schedule."""
    if not any(weight.is_meta for weight in bridge.vision.parameters()):
        return bridge.to(device)
    for part in (bridge.language, bridge.connector):
        part.to(device)
    for name, values in list(bridge.vision.named_buffers(recurse=False)):
        setattr(bridge.vision, name, values.to(device))
    return bridge


@torch.no_grad()
def calibrate_bridge(bridge: Bridge, dataset: Dataset) -> None:
    """Fit the connector's first weights to the features of the data's first captions."""
    samples = [dataset.sample(index) for index in range(min(_CALIBRATED_ON, len(dataset)))]
    captions = [sample.captions[0] for sample in samples]
    parts = [_tokens(bridge, captions[start : start + 32]) for start in range(0, len(captions), 32)]
    tokens = torch.cat(parts)
    if len(tokens) > 1:
        bridge.connector.calibrate(tokens)


@torch.no_grad()
def conditioning_scale_warning(bridge: Bridge, captions: Sequence[str]) -> str | None:
    """Return a warning if the conditioning's scale is far from the scale in the vision model's training.

    A decoder-only model's features, fed to cross-attention without a norm, led to a NaN loss in SANA (Xie et
    al. 2024, arXiv 2410.10629).
    """
    known = bridge.vision.spec.rms
    if known is None:
        return None
    middle = bridge.vision.times[len(bridge.vision.times) // 2].expand(len(captions))
    made = bridge.condition(captions, middle)
    size = float(made.tokens[made.mask].float().square().mean().sqrt())
    if known / _FAR <= size <= known * _FAR:
        return None
    return (
        f"note: the conditioning tokens have a root mean square of {size:.3g}, but the vision model was "
        f"trained with about {known:.3g}: training may diverge or start slowly. connector.read=norm_mean "
        "gives features of a known scale, and the connectors 'lavi' and 'query' normalise them"
    )


def _tokens(bridge: Bridge, captions: list[str]) -> Float[Tensor, "token layer width"]:
    """Features of the real tokens except the first, which many models compute alike for every prompt."""
    features = bridge.features(captions)
    real = features.mask.clone()
    real[:, 0] = False
    return features.hidden.transpose(1, 2)[real]
