"""The teacher: the vision model with its own text encoder predicts the target of the bridge.

    target = own(xt, t, "") + guidance (own(xt, t, caption) - own(xt, t, ""))      replaces the true target

A prediction is deterministic, whereas the noise of an image is only one of many that lead to the same noisy
latents. The bridge learns to predict in one pass what the teacher predicts with guidance, which halves the
cost of an image. It cannot learn what the vision model's own encoder does not understand.

Training a text encoder on predictions of the denoiser that uses it: Wang et al. 2025, arXiv 2503.19897;
distilling guidance: Meng et al. 2023, arXiv 2210.03142; into the conditioning alone: DICE, arXiv 2502.03726.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from lavibridge import lora
from lavibridge.bridge import Bridge
from lavibridge.core.contracts import Batch, TextFeatures
from lavibridge.diffusion.objective import add_noise
from lavibridge.training.cache.feature_reader import feature_reader
from lavibridge.training.data.batches import TrainingPass
from lavibridge.training.objectives.native_encoder import native_bridge

FEATURE_CACHE_GB = 1.0
"""Memory for the own encoder's features of captions."""


@final
class Teacher:
    """The vision model as published; it shares the bridge's denoiser."""

    autocast: AbstractContextManager[object]

    def __init__(self, bridge: Bridge, guidance: float, bfloat16: bool = False) -> None:
        self.native = native_bridge(bridge, "training.teacher")
        self.guidance = guidance
        self.autocast = torch.autocast(bridge.device.type, torch.bfloat16) if bfloat16 else nullcontext()
        self._read = feature_reader(self.native, FEATURE_CACHE_GB)
        with torch.no_grad():
            (self._empty,) = self.native.features([""], negative=True).split()

    def target(self, draw: TrainingPass) -> Float[Tensor, "batch channel h w"]:
        """Predict the target for the noisy latents of a pass, with guidance if `guidance` is not 1."""
        return self.predict(draw, self._read(draw.batch.prompts))

    @torch.no_grad()
    def predict(self, draw: TrainingPass, features: TextFeatures) -> Float[Tensor, "batch channel h w"]:
        """Predict the same from given features of the captions by the vision model's own encoder."""
        vision = self.native.vision
        alpha, sigma, times = vision.alphas[draw.t], vision.sigmas[draw.t], vision.times[draw.t]
        noisy = add_noise(draw.batch.latents, draw.noise, alpha, sigma)
        is_guided = self.guidance != 1
        if is_guided:
            features = TextFeatures.pad([*[self._empty] * len(noisy), *features.split()])
        twice = torch.cat([noisy, noisy]) if is_guided else noisy
        with self.autocast, lora.disable_adapters(vision.backbone):
            prediction = vision.predict(
                twice, times.repeat(2) if is_guided else times, self.native.connector(features)
            )
        if not is_guided:
            return prediction
        unconditional, conditional = prediction.chunk(2)
        return vision.guide(unconditional, conditional, self.guidance)


def with_teacher_target(teacher: Teacher | None, draw: TrainingPass) -> Batch:
    """The batch of a pass, with the teacher's prediction as its target if there is a teacher."""
    if teacher is None:
        return draw.batch
    return replace(draw.batch, target=teacher.target(draw))
