"""FD-DINOv2: FID with DINOv2's features, which follow people's judgement better.

The class token of ViT-L/14, normed; the whole picture at 224 x 224, bicubic. Stein et al. 2023 (arXiv
2306.04675).
"""

from collections.abc import Callable

from lavibridge.evaluation.metrics.base import SetMetric
from lavibridge.evaluation.sets.encoders import Resize
from lavibridge.evaluation.sets.features import Features, Reference
from lavibridge.evaluation.sets.frechet import frechet_to


class FDDINOv2(SetMetric):
    """The same distance as FID."""

    class Config(SetMetric.Config):
        """The options, as published by default."""

        features: str = "facebook/dinov2-large"
        """The DINOv2 model."""
        resize: Resize | None = "square"
        """How pictures are brought to its size."""

    def against(self, reference: Reference) -> Callable[[Features], dict[str, float]]:
        """The distance to the reference's normal distribution."""
        fixed = frechet_to(reference.all_moments())
        return lambda drawn: {"fd_dinov2": fixed.distance(drawn)}
