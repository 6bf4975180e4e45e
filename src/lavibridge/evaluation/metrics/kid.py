"""KID: the kernel distance between the features of drawn and real pictures.

The estimator is unbiased, so it suits sets of a few hundred pictures, and may be slightly below 0.
"""

import math
from collections.abc import Callable

from lavibridge.evaluation.metrics.base import SetMetric
from lavibridge.evaluation.sets.features import ReferenceFeatures, SetFeatures
from lavibridge.evaluation.sets.kernels import kid_kernel_distance


class KID(SetMetric):
    """KID. Published numbers use the 2015 Inception as `features` and are often given times 1000."""

    bounds = (-math.inf, math.inf)

    def against(self, reference: ReferenceFeatures) -> Callable[[SetFeatures], dict[str, float]]:
        """The distance to the reference's features."""
        measure = kid_kernel_distance(reference.all_features("KID"))
        return lambda drawn: {"kid": measure(drawn)}
