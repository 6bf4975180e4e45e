"""The base of objectives that call the denoiser: several captions share the same noised latents.

Most of a denoiser's output depends on the noised latents, which student and teacher share. Captions with the
same latents show how much depends on the caption; the fvu is relative to that variance.
"""

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from lavibridge.alignment.base import NoisedLatents
from lavibridge.alignment.parts.shared_latents import SharedLatentsObjective
from lavibridge.alignment.parts.variance import unexplained_within
from lavibridge.bridge import Bridge
from lavibridge.core.contracts import Conditioning
from lavibridge.vision.base import VisionModel


class DenoisingObjective(SharedLatentsObjective):
    """Runs the denoiser with both conditionings, for the same noised latents and times."""

    latents: Float[Tensor, "image channel h w"]

    def prepare(self, student: Bridge, teacher: Bridge, noised: Sequence[NoisedLatents]) -> None:
        """Store the noised latents of the most common shape."""
        shape, _ = Counter(each.latents.shape[1:] for each in noised).most_common(1)[0]
        kept = [each for each in noised if each.latents.shape[1:] == shape]
        super().prepare(student, teacher, kept)
        self.latents = torch.cat([each.latents for each in kept])

    def fractions(
        self,
        vision: VisionModel,
        conditioning: Conditioning,
        target: Conditioning,
        chosen: Int[Tensor, " caption"],
    ) -> list[Float[Tensor, ""]]:
        """Return the fvu of each of the denoiser's outputs that the kind compares."""
        noisy, t = self.latents[chosen], self.t[chosen]
        with torch.no_grad():
            targets = self.outputs(vision, noisy, t, target)
        outputs = self.outputs(vision, noisy, t, conditioning)
        return [
            unexplained_within(output, each, chosen) for output, each in zip(outputs, targets, strict=True)
        ]

    @abstractmethod
    def outputs(
        self,
        vision: VisionModel,
        noisy: Float[Tensor, "caption channel h w"],
        t: Num[Tensor, " caption"],
        conditioning: Conditioning,
    ) -> list[Float[Tensor, "caption ..."]]:
        """Return the denoiser's outputs that the kind compares."""
