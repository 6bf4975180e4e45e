"""What tells one model from another, whatever files it comes in.

    language model   what it makes of eight captions: the layers that the half reads, normed, averaged over
                     tokens; and where its tokenizer cuts them
    vision model     what it predicts for fixed latents and fixed conditioning, at a quarter of the schedule

    distance(a, b) = |a - b| / |b - mean of b over captions|

A model keeps its fingerprint, within `TOLERANCE`, as a hub id, a folder, in 16 bits or quantised to 8: the
shipped models are then at most 0.014 (language) and 0.052 (vision) away. LoRA a thirtieth as large as the
weights moves them by 0.036 to 0.16, and quantising to 4 bits by 0.056 to 0.19: such models count as others.
Bytes cannot tell this, as each of those files has others.
"""

import hashlib
import json
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from lavibridge import lora
from lavibridge.core.contracts import Conditioning, Reading
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
"""The captions; another text would change every half's fingerprint."""
TOLERANCE: Mapping[str, float] = {"language": 0.03, "vision": 0.06}
"""Largest distance at which two models of a side count as one. A vision model's denoiser has more layers for
errors of rounding to grow in."""
TOKENS, VALUES = 8, 1024
"""Conditioning tokens, and predicted numbers that are kept of each latent."""
LATENTS = 2
"""Latents for which a vision model predicts."""

Fingerprint = Float[Tensor, "row value"]


@torch.no_grad()
def language_fingerprint(model: LanguageModel, layers: tuple[int, ...]) -> Float[Tensor, "8 width"]:
    """Return one row for each caption; LoRA plays no part in it."""
    with lora.disable_adapters(model.backbone):
        features = model.encode(CAPTIONS, Reading(layers=layers))
    normed = functional.layer_norm(features.hidden, features.hidden.shape[-1:]).mean(dim=1)
    real = features.mask[..., None].to(normed)
    return ((normed * real).sum(1) / real.sum(1)).cpu()


def tokenizer_hash(model: LanguageModel) -> str:
    """Return a hash of the characters that each token of the captions stands for."""
    spans = [[list(span) for span in model.spans(caption)] for caption in CAPTIONS]
    return hashlib.sha256(json.dumps(spans).encode()).hexdigest()[:12]


@torch.no_grad()
def vision_fingerprint(model: VisionModel) -> Float[Tensor, "2 value"]:
    """Return one row for each latent; LoRA plays no part in it."""
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
    """Return how far a fingerprint is from the expected one; infinity if it has another shape."""
    if fingerprint.shape != expected.shape:
        return float("inf")
    spread = (expected - expected.mean(dim=0)).norm()
    return float((fingerprint - expected).norm() / spread.clamp_min(1e-12))
