"""`blocks`: compares the image stream after each transformer block, and the prediction.

It supports every denoiser, and is the only objective that compares single layers of denoisers with joint
attention (SD3, FLUX). Gradients pass through the denoiser, so a step needs as much memory as a training step.

Ma et al. 2025 (X2I, arXiv 2503.06134) distil the attention of a transformer's blocks into a new text encoder.
"""

from jaxtyping import Float, Num
from torch import Tensor

from lavibridge.alignment.parts.denoised import DenoisingObjective
from lavibridge.core.contracts import Conditioning
from lavibridge.vision.base import VisionModel


class BlockOutputs(DenoisingObjective):
    """Compares the image stream after each block."""

    class Config(DenoisingObjective.Config):
        """Options of `match: blocks`."""

    config: Config

    def outputs(
        self,
        vision: VisionModel,
        noisy: Float[Tensor, "caption channel h w"],
        t: Num[Tensor, " caption"],
        conditioning: Conditioning,
    ) -> list[Float[Tensor, "caption ..."]]:
        """Return every block's output and the prediction."""
        return list(vision.block_outputs(noisy, t, conditioning).values())
