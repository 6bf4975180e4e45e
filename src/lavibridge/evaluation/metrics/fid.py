"""FID: the Frechet distance between the features of drawn and real pictures."""

from collections.abc import Callable

from lavibridge.evaluation.metrics.base import SetMetric
from lavibridge.evaluation.sets.features import ReferenceFeatures, SetFeatures
from lavibridge.evaluation.sets.frechet import frechet_to


class FID(SetMetric):
    """FID. To compare with published numbers, use the 2015 Inception as `features` and their resize rule."""

    def against(self, reference: ReferenceFeatures) -> Callable[[SetFeatures], dict[str, float]]:
        """The distance to the reference's normal distribution."""
        fixed = frechet_to(reference.all_moments())
        return lambda drawn: {"fid": fixed.distance(drawn)}
