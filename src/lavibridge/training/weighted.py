"""Parts of the data in shares of one's own choice, whatever their sizes.

    of each 10,000 visits (or passes, where pictures are in buckets) round(10,000 * share) are a part's, in an
    order of their own; a part's visits run through its own order, from round to round

So the shares hold to a ten-thousandth, small parts come round more often than large ones, and the place in
every part follows from the position alone. The published LaVi-Bridge was trained on 600k pictures of COCO and
400k others (Zhao et al. 2024, arXiv 2403.07860).
"""

from collections.abc import Sequence
from typing import final

import numpy as np
from jaxtyping import Int64

from lavibridge.training.order import Order, Shuffled, mix

BLOCK = 10_000


def apportion(weights: Sequence[float]) -> list[int]:
    """How many of a block's places each part takes: the nearest to its share, at least one, BLOCK in all."""
    shares = np.array(weights, dtype=np.float64) / sum(weights) * BLOCK
    places = np.maximum(np.floor(shares), 1).astype(np.int64)
    while (missing := BLOCK - int(places.sum())) > 0:  # by the largest remainders
        places[np.argmax(shares - places)] += 1
    places[np.argmax(places)] += missing  # where parts with next to nothing have got their one
    return [int(place) for place in places]


@final
class Weighted(Order):
    """Parts, each in its own order, one after the other in the numbering of samples."""

    def __init__(self, parts: Sequence[Order], weights: Sequence[float], unit: int, seed: int) -> None:
        self.parts = parts
        self.unit = unit
        self.count = sum(part.count for part in parts)
        self.starts = np.cumsum([0, *(part.count for part in parts)])[:-1]
        self.places = apportion(weights)
        self.ends = np.cumsum(self.places)
        self.turns = Shuffled(BLOCK, mix(seed, 2))

    def indices(self, positions: Int64[np.ndarray, " position"]) -> Int64[np.ndarray, " position"]:
        turns, inside = np.divmod(positions, self.unit)
        shuffled = self.turns.indices(turns)
        part = np.searchsorted(self.ends, shuffled, side="right")
        places, ends = np.array(self.places)[part], self.ends[part]
        own = (turns // BLOCK * places + shuffled - (ends - places)) * self.unit + inside
        found = np.empty_like(positions)
        for number in np.unique(part).tolist():
            here = part == number
            found[here] = self.starts[number] + self.parts[number].indices(own[here])
        return found
