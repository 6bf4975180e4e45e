"""CMMD: a kernel distance between CLIP's embeddings of drawn and real pictures.

ViT-L/14 at 336 pixels, the middle square of the picture. Jayasumana et al. 2024 (arXiv 2401.09603).
"""

from collections.abc import Callable

from lavibridge.evaluation.metrics.base import SetMetric
from lavibridge.evaluation.sets.extractors import ExtractorResize
from lavibridge.evaluation.sets.features import ReferenceFeatures, SetFeatures
from lavibridge.evaluation.sets.kernels import cmmd_kernel_distance


class CMMD(SetMetric):
    """CMMD as published, times 1000."""

    class Config(SetMetric.Config):
        """The options, as published by default."""

        features: str = "openai/clip-vit-large-patch14-336"
        """The CLIP model."""
        resize: ExtractorResize | None = "centre"
        """How to resize pictures for it."""

    def against(self, reference: ReferenceFeatures) -> Callable[[SetFeatures], dict[str, float]]:
        """The distance to the reference's embeddings."""
        measure = cmmd_kernel_distance(reference.all_features("CMMD"))
        return lambda drawn: {"cmmd": measure(drawn)}
