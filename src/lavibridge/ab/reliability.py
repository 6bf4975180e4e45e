"""Agreement between raters beyond chance: Fleiss' kappa and Krippendorff's alpha.

    kappa = (P - Pe) / (1 - Pe)    P  = mean over items of agreeing pairs of ratings / pairs of ratings
                                   Pe = sum over values of their share, squared
    alpha = 1 - Do / De            Do, De = observed and expected mean difference of two ratings of an item

Both take a table of items by values that counts the raters of each value. Items with fewer than two ratings
are excluded. 1 means full agreement, 0 chance, below 0 less than chance.

Fleiss 1971, Psychol. Bull. 76, with the number of raters free; Krippendorff 2011, "Computing Krippendorff's
Alpha-Reliability", University of Pennsylvania.
"""

import math
from typing import Literal

import numpy as np
from jaxtyping import Float

RatingTable = Float[np.ndarray, "item value"]


def fleiss_kappa(table: RatingTable) -> float:
    """Fleiss' kappa; NaN if no item has two ratings or all ratings are equal."""
    kept = table[table.sum(axis=1) >= 2]
    if not len(kept):
        return math.nan
    raters = kept.sum(axis=1)
    agreeing = ((kept**2).sum(axis=1) - raters) / (raters * (raters - 1))
    shares = kept.sum(axis=0) / kept.sum()
    by_chance = float((shares**2).sum())
    return (float(agreeing.mean()) - by_chance) / (1 - by_chance) if by_chance < 1 else math.nan


def krippendorff_alpha(table: RatingTable, level: Literal["nominal", "ordinal"] = "nominal") -> float:
    """Krippendorff's alpha; `ordinal` weights distant values more. NaN as for `fleiss_kappa`."""
    kept = table[table.sum(axis=1) >= 2]
    if not len(kept):
        return math.nan
    weights = 1 / (kept.sum(axis=1) - 1)
    coincidences = (kept * weights[:, None]).T @ kept - np.diag((kept * weights[:, None]).sum(axis=0))
    totals = coincidences.sum(axis=1)
    expected = np.outer(totals, totals) - np.diag(totals)
    difference = 1 - np.eye(len(totals))
    if level == "ordinal":  # number of ratings between two values, counting half of their own
        middle = np.cumsum(totals) - totals / 2
        difference = (middle[:, None] - middle[None]) ** 2
    by_chance = float((expected * difference).sum()) / (float(totals.sum()) - 1)
    return 1 - float((coincidences * difference).sum()) / by_chance if by_chance > 0 else math.nan


def mirrored_ratings(table: RatingTable) -> Float[np.ndarray, "both value"]:
    """Append the table's mirror image, since the order of two pictures is arbitrary.

    Without it, chance agreement would depend on the assignment of sides.
    """
    return np.concatenate([table, table[:, ::-1]])
