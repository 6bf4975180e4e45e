"""FD-DINOv2: FID with DINOv2's features, which agree better with people.

Uses the normalised class token of ViT-L/14, and the whole picture at 224 x 224, bicubic. Stein et al. 2023
(arXiv 2306.04675).
"""

from collections.abc import Callable

from lavibridge.evaluation.metrics.base import SetMetric
from lavibridge.evaluation.sets.extractors import ExtractorResize
from lavibridge.evaluation.sets.features import ReferenceFeatures, SetFeatures
from lavibridge.evaluation.sets.frechet import frechet_to


class FDDINOv2(SetMetric):
    """FID on DINOv2's features."""

    class Config(SetMetric.Config):
        """The options, as published by default."""

        features: str = "facebook/dinov2-large"
        """The DINOv2 model."""
        resize: ExtractorResize | None = "square"
        """How to resize pictures for it."""

    def against(self, reference: ReferenceFeatures) -> Callable[[SetFeatures], dict[str, float]]:
        """The distance to the reference's normal distribution."""
        fixed = frechet_to(reference.all_moments())
        return lambda drawn: {"fd_dinov2": fixed.distance(drawn)}
