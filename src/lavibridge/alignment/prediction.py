"""`prediction`: compares the denoiser's predictions along the teacher's sampling trajectories.

It needs no images of a data set. Gradients pass through the denoiser, so a step needs as much memory as a
training step.

Wang et al. 2025 (arXiv 2503.19897) train a small T5 on the denoiser's predictions under a large one, along
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
