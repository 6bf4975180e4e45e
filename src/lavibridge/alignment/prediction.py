"""`prediction`: what the denoiser predicts, along the way that the teacher takes when it draws.

Noised pictures of a data set are not needed. Gradients pass through the denoiser, so that a step takes the
memory of a training step.

Wang et al. 2025 (arXiv 2503.19897) train a small T5 on the predictions that a large one leads to, along
sampling trajectories.
"""

from jaxtyping import Float, Num
from torch import Tensor

from lavibridge.alignment.parts.denoised import DenoisingObjective
from lavibridge.core.contracts import Conditioning
from lavibridge.vision.base import VisionModel


class Prediction(DenoisingObjective):
    """Compares the denoiser's prediction."""

    class Config(DenoisingObjective.Config):
        """Options of `match: prediction`."""

    config: Config
    follows_sampling = True

    def outputs(
        self,
        vision: VisionModel,
        noisy: Float[Tensor, "caption channel h w"],
        t: Num[Tensor, " caption"],
        conditioning: Conditioning,
    ) -> list[Float[Tensor, "caption ..."]]:
        """Return the prediction."""
        return [vision.predict(noisy, t, conditioning)]
