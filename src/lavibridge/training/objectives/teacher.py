"""The teacher: the image model under its own text encoder says what the bridge should predict.

    wanted = own(xt, t, "") + guidance (own(xt, t, caption) - own(xt, t, ""))      instead of the true one

Its predictions have no chance in them, where the noise of a picture is one of many that lead there; and what
it predicts under guidance the bridge then predicts in one pass, at half the cost of a picture. What the own
encoder does not understand it cannot teach.

To train a text encoder on predictions of the denoiser that it will speak to is Wang et al. 2025's (arXiv
2503.19897); to distil guidance, Meng et al. 2023's (arXiv 2210.03142), into the conditioning alone that of
DICE (arXiv 2502.03726).
"""

from dataclasses import replace
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from lavibridge import lora
from lavibridge.bridge import Bridge
from lavibridge.core.contracts import Batch
from lavibridge.diffusion.guidance import guide
from lavibridge.diffusion.objective import corrupt
from lavibridge.training.data.batches import Draw
from lavibridge.training.objectives.native_encoder import own_encoder, reader


@final
class Teacher:
    """The image model as it was published, which shares the bridge's denoiser."""

    def __init__(self, bridge: Bridge, guidance: float, bfloat16: bool = False) -> None:
        self.own = own_encoder(bridge, "training.teacher")
        self.guidance = guidance
        self.rounded = torch.autocast(bridge.device.type, torch.bfloat16, enabled=bfloat16)
        self._read = reader(self.own)

    @torch.no_grad()
    def target(self, draw: Draw) -> Float[Tensor, "batch channel h w"]:
        """What the bridge should predict of a pass's noised pictures."""
        own, vision = self.own, self.own.vision
        alpha, sigma, times = vision.alphas[draw.t], vision.sigmas[draw.t], vision.times[draw.t]
        noisy = corrupt(draw.batch.latents, draw.noise, alpha, sigma)
        prompts = list(draw.batch.prompts)
        is_guided = self.guidance != 1
        texts = [""] * len(prompts) + prompts if is_guided else prompts
        twice = torch.cat([noisy, noisy]) if is_guided else noisy
        with self.rounded, lora.disable_adapters(vision.backbone):
            found = vision.predict(
                twice, times.repeat(2) if is_guided else times, own.connector(self._read(texts))
            )
        if not is_guided:
            return found
        unconditional, conditional = found.chunk(2)
        return guide(unconditional, conditional, self.guidance)


def taught(teacher: Teacher | None, draw: Draw) -> Batch:
    """The pass's batch, with what the teacher wants of it, where there is one."""
    if teacher is None:
        return draw.batch
    return replace(draw.batch, target=teacher.target(draw))
