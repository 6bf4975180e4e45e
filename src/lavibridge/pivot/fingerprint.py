"""Distinguishes models by their outputs for fixed inputs, independent of their files.

    language model   its features of eight captions: the layers that the half reads, normed, averaged over
                     tokens; and the tokens into which its tokenizer cuts them
    image encoder    its features of eight fixed pictures: the layers that the half reads, likewise
    vision model     its prediction for fixed latents and fixed conditioning, at a quarter of the schedule

    distance(a, b) = |a - b| / |b - mean of b over captions|

A model has the same fingerprint, within `TOLERANCE`, as a hub id, as a folder, in 16 bits, and quantised to 8
bits: the shipped models are then at most 0.014 (language) and 0.052 (vision) away. LoRA a thirtieth as large
as the weights moves them by 0.036 to 0.16, and quantisation to 4 bits by 0.056 to 0.19: such models count as
different. A file hash cannot do this, because each of those files has different bytes.
"""

import hashlib
import json
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional

from lavibridge import lora
from lavibridge.core.contracts import Conditioning, ReadingSpec, TextFeatures
from lavibridge.image_encoder.base import ImageEncoder
from lavibridge.language.base import LanguageModel
from lavibridge.vision.base import VisionModel

CAPTIONS = (
    "a red circle",
    "a small blue square to the left of a large green star",
    "three yellow triangles on a striped background",
    "an old man with a white beard reads a newspaper on a bench",
    "a plate of spaghetti next to a glass of red wine",
    "a city street at night after the rain, seen from above",
    "two horses gallop along the beach",
    "an empty room",
)
"""The captions; a change to them would invalidate every half's fingerprint."""
TOLERANCE: Mapping[str, float] = {"language": 0.03, "vision": 0.06, "image_encoder": 0.03}
"""Largest distance at which two models count as the same. It is larger for vision models, because rounding
errors grow through the denoiser's many layers."""
TOKENS, VALUES = 8, 1024
"""Number of conditioning tokens, and of predicted values for each latent."""
LATENTS = 2
"""Number of latents for which a vision model predicts."""

Fingerprint = Float[Tensor, "row value"]


@torch.no_grad()
def language_fingerprint(model: LanguageModel, layers: tuple[int, ...]) -> Float[Tensor, "8 width"]:
    """Return one row for each caption; LoRA plays no part in it."""
    with lora.disable_adapters(model.backbone):
        features = model.encode(CAPTIONS, ReadingSpec(layers=layers))
    return _mean_over_tokens(features)


@torch.no_grad()
def image_fingerprint(model: ImageEncoder, layers: tuple[int, ...]) -> Float[Tensor, "8 width"]:
    """Return one row for each of eight pictures of waves, whose colours, directions and lengths differ."""
    return _mean_over_tokens(model.encode(_pictures(), ReadingSpec(layers=layers)))


def _mean_over_tokens(features: TextFeatures) -> Float[Tensor, "8 width"]:
    normed = functional.layer_norm(features.hidden, features.hidden.shape[-1:]).mean(dim=1)
    real = features.mask[..., None].to(normed)
    return ((normed * real).sum(1) / real.sum(1)).cpu()


def _pictures() -> list[Image.Image]:
    """Return the eight pictures; a change to them would invalidate every fingerprint of an image encoder."""
    y, x, channel = np.meshgrid(np.arange(64) / 64, np.arange(64) / 64, np.arange(3), indexing="ij")
    waves = [
        np.sin(2 * np.pi * ((1 + number % 4) * x + (number // 2) * y + channel * number / 8))
        for number in range(8)
    ]
    return [Image.fromarray((127.5 + 127.5 * wave).round().astype(np.uint8)) for wave in waves]


def tokenizer_hash(model: LanguageModel) -> str:
    """Return a hash of the characters that each token of the captions stands for."""
    spans = [[list(span) for span in model.spans(caption)] for caption in CAPTIONS]
    return hashlib.sha256(json.dumps(spans).encode()).hexdigest()[:12]


@torch.no_grad()
def vision_fingerprint(model: VisionModel) -> Float[Tensor, "2 value"]:
    """Compute one row for each latent, without LoRA."""
    generator = torch.Generator().manual_seed(0)
    device = model.alphas.device

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    side = model.default_size
    noisy = drawn(LATENTS, *model.latent_shape(side, side))
    conditioning = Conditioning(
        tokens=(model.spec.rms or 1.0) * drawn(LATENTS, TOKENS, model.spec.context),
        mask=torch.ones(LATENTS, TOKENS, dtype=torch.bool, device=device),
        pooled=None if model.spec.pooled is None else drawn(LATENTS, model.spec.pooled),
    )
    t = model.times[len(model.times) // 4].expand(LATENTS)
    with lora.disable_adapters(model.backbone):
        predicted = model.predict(noisy, t, conditioning).flatten(1).cpu()
    places = torch.linspace(0, predicted.shape[1] - 1, min(VALUES, predicted.shape[1])).round().long()
    return predicted[:, places]


def distance(fingerprint: Fingerprint, expected: Fingerprint) -> float:
    """Return the distance of a fingerprint from the expected one; infinity if their shapes differ."""
    if fingerprint.shape != expected.shape:
        return float("inf")
    spread = (expected - expected.mean(dim=0)).norm()
    return float((fingerprint - expected).norm() / spread.clamp_min(1e-12))
