"""Precision and recall of drawn pictures against real ones, by nearest neighbours."""

from collections.abc import Callable

from pydantic import Field

from lavibridge.evaluation.metrics.base import SetMetric
from lavibridge.evaluation.sets.extractors import ExtractorResize
from lavibridge.evaluation.sets.features import ReferenceFeatures, SetFeatures
from lavibridge.evaluation.sets.precision_recall import precision_recall_to


class PrecisionRecall(SetMetric):
    """Precision (how many drawn pictures look real) and recall (how much of the reference is covered)."""

    class Config(SetMetric.Config):
        """The options of precision and recall."""

        features: str = "facebook/dinov2-large"
        """The feature extractor."""
        resize: ExtractorResize | None = "square"
        """How to resize pictures for it."""
        k: int = Field(default=3, ge=1, lt=19)
        """The neighbour that sets a ball's radius: 3 in the paper, often 5 since."""

    config: "PrecisionRecall.Config"
    unit = "share"
    bounds = (0.0, 1.0)
    lower_is_better = False

    def against(self, reference: ReferenceFeatures) -> Callable[[SetFeatures], dict[str, float]]:
        """Precision and recall against the reference's features."""
        return precision_recall_to(reference.all_features("precision and recall"), self.config.k)
