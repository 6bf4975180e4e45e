"""KID: the kernel distance between the features of drawn and real pictures.

Unbiased, so that sets of a few hundred pictures can be compared; a good one may be slightly below 0.
"""

import math
from collections.abc import Callable

from lavibridge.evaluation.metrics.base import SetMetric
from lavibridge.evaluation.sets.features import Features, Reference
from lavibridge.evaluation.sets.kernels import kid_to


class KID(SetMetric):
    """Published numbers want the 2015 Inception as `features`; they are often given times 1000."""

    bounds = (-math.inf, math.inf)

    def against(self, reference: Reference) -> Callable[[Features], dict[str, float]]:
        """The distance to the reference's features."""
        measure = kid_to(reference.all_features("KID"))
        return lambda drawn: {"kid": measure(drawn)}
