"""Precision and recall of drawn pictures against real ones, by nearest neighbours."""

from collections.abc import Callable

from pydantic import Field

from lavibridge.evaluation.metrics.base import SetMetric
from lavibridge.evaluation.sets.encoders import Resize
from lavibridge.evaluation.sets.features import Features, Reference
from lavibridge.evaluation.sets.precision_recall import precision_recall_to


class PrecisionRecall(SetMetric):
    """How much looks real, and how much of what is real is drawn."""

    class Config(SetMetric.Config):
        """The options."""

        features: str = "facebook/dinov2-large"
        """Whose features."""
        resize: Resize | None = "square"
        """How pictures are brought to its size."""
        k: int = Field(default=3, ge=1, lt=19)
        """Which neighbour a picture's ball reaches to: 3 in the paper, 5 with many authors since."""

    config: "PrecisionRecall.Config"
    unit = "share"
    bounds = (0.0, 1.0)
    lower_is_better = False

    def against(self, reference: Reference) -> Callable[[Features], dict[str, float]]:
        """Precision and recall against the reference's features."""
        return precision_recall_to(reference.all_features("precision and recall"), self.config.k)
