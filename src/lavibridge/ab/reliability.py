"""How far raters agree with each other, beyond what chance would give: Fleiss' kappa, Krippendorff's alpha.

    kappa = (P - Pe) / (1 - Pe)    P  = mean over things of agreeing pairs of ratings / pairs of ratings
                                   Pe = sum over values of their share, squared
    alpha = 1 - Do / De            Do, De = observed and expected mean difference of two ratings of a thing

Both read a table: things down, values across, in each cell how many raters gave the value. A thing with one
rating has no pair and is left out. 1 = all agree, 0 = as by chance, below 0 = less than by chance.

Fleiss 1971, Psychol. Bull. 76, with the number of raters free; Krippendorff 2011, "Computing Krippendorff's
Alpha-Reliability", University of Pennsylvania.
"""

import math
from typing import Literal

import numpy as np
from jaxtyping import Float

Table = Float[np.ndarray, "thing value"]


def fleiss(table: Table) -> float:
    """Fleiss' kappa; NaN where no thing has two ratings, or all ratings are one value."""
    kept = table[table.sum(axis=1) >= 2]
    if not len(kept):
        return math.nan
    raters = kept.sum(axis=1)
    agreeing = ((kept**2).sum(axis=1) - raters) / (raters * (raters - 1))
    shares = kept.sum(axis=0) / kept.sum()
    by_chance = float((shares**2).sum())
    return (float(agreeing.mean()) - by_chance) / (1 - by_chance) if by_chance < 1 else math.nan


def krippendorff(table: Table, level: Literal["nominal", "ordinal"] = "nominal") -> float:
    """Krippendorff's alpha; `ordinal` counts values further apart as differing more. NaN as for `fleiss`."""
    kept = table[table.sum(axis=1) >= 2]
    if not len(kept):
        return math.nan
    weights = 1 / (kept.sum(axis=1) - 1)
    coincidences = (kept * weights[:, None]).T @ kept - np.diag((kept * weights[:, None]).sum(axis=0))
    totals = coincidences.sum(axis=1)
    expected = np.outer(totals, totals) - np.diag(totals)
    difference = 1 - np.eye(len(totals))
    if level == "ordinal":  # how many ratings lie between two values, half of their own among them
        middle = np.cumsum(totals) - totals / 2
        difference = (middle[:, None] - middle[None]) ** 2
    by_chance = float((expected * difference).sum()) / (float(totals.sum()) - 1)
    return 1 - float((coincidences * difference).sum()) / by_chance if by_chance > 0 else math.nan


def either_way(table: Table) -> Float[np.ndarray, "both value"]:
    """The table and its mirror image: which of two pictures comes first is nothing that raters agree about.

    Without it chance agreement would depend on how the sides fell.
    """
    return np.concatenate([table, table[:, ::-1]])
