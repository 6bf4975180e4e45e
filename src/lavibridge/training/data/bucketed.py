"""Groups images into buckets of one shape, so that all images of a pass have the same shape.

    shapes           about size * size pixels, from twice as high as wide to twice as wide as high
    an image         belongs to the shape whose proportions are nearest to its own
    a pass           has `group` positions (a batch on every device), all of one bucket
    epoch e          has the passes ceil(e * n / group) .. ceil((e + 1) * n / group) - 1 of a bucket of n

An epoch shuffles the passes of all buckets together. If a bucket does not divide into whole passes, its last
pass continues with images of the bucket's next round. After e epochs every image has been visited at least e
times, and a bucket's visits exceed e times its images by less than one pass. No image is skipped and there is
no state: the order is a function of (seed, position, batch * devices). The idea is NovelAI's ("Aspect ratio
bucketing", 2022).
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import final

import numpy as np
from jaxtyping import Int, Int64

from lavibridge.core.seeds import mix_seeds
from lavibridge.training.data.order import SampleOrder, ShuffledOrder

_WIDEST = 2.0
"""The largest ratio of the longer side to the shorter; images beyond it are cropped."""
DEFAULT_BUCKETS = 9


def bucket_shapes(size: tuple[int, int], unit: int, count: int) -> list[tuple[int, int]]:
    """(height, width) of up to `count` shapes with about the area of `size` and sides divisible by `unit`."""
    side = math.sqrt(size[0] * size[1])
    found: dict[tuple[int, int], None] = {}
    for place in range(count):
        ratio = _WIDEST ** (2 * place / (count - 1) - 1)  # width / height; evenly spaced in logarithm
        height, width = (max(unit, round(side * root / unit) * unit) for root in (ratio**-0.5, ratio**0.5))
        found[height, width] = None
    return list(found)


def nearest_buckets(
    sizes: Int[np.ndarray, "picture 2"], shapes: Sequence[tuple[int, int]]
) -> Int64[np.ndarray, " picture"]:
    """The index of the shape whose proportions are nearest to each image's (height, width)."""
    wanted = np.log(np.array([width / height for height, width in shapes]))
    middles = (np.sort(wanted)[1:] + np.sort(wanted)[:-1]) / 2
    found = np.log(sizes[:, 1] / sizes[:, 0])
    return np.argsort(wanted)[np.searchsorted(middles, found)]


@final
class Bucketed(SampleOrder):
    """Passes of `group` samples, each from one bucket; `buckets` has the bucket of each sample."""

    def __init__(self, buckets: Int64[np.ndarray, " sample"], group: int, seed: int) -> None:
        self.count = len(buckets)
        self.group = group
        self.seed = seed
        self.buckets = buckets
        present = np.unique(buckets).tolist()
        self.members = [np.flatnonzero(buckets == bucket) for bucket in present]
        self.rounds = [
            ShuffledOrder(len(each), mix_seeds(seed, bucket))
            for each, bucket in zip(self.members, present, strict=True)
        ]
        self.turns = lru_cache(maxsize=4)(self._turns)

    def passes_before(self, epoch: int) -> list[int]:
        """The number of passes of each bucket before an epoch."""
        return [-(-epoch * len(each) // self.group) for each in self.members]

    def _locate(self, turn: int) -> tuple[int, int]:
        """Find pass number `turn` of the run: its bucket, and its number among the bucket's passes."""
        # ceil only adds passes to earlier epochs, so the epoch is this one or one shortly before it.
        epoch = turn * self.group // self.count
        while sum(self.passes_before(epoch)) > turn:
            epoch -= 1
        before, after = self.passes_before(epoch), self.passes_before(epoch + 1)
        ends = np.cumsum(np.array(after) - np.array(before))
        shuffled = self.turns(epoch, int(ends[-1])).index(turn - sum(before))
        bucket = int(np.searchsorted(ends, shuffled, side="right"))
        return bucket, after[bucket] - int(ends[bucket]) + shuffled

    def _turns(self, epoch: int, count: int) -> ShuffledOrder:
        """The shuffled order of an epoch's passes."""
        return ShuffledOrder(count, mix_seeds(self.seed, epoch, 1))

    def indices(self, positions: Int64[np.ndarray, " position"]) -> Int64[np.ndarray, " position"]:
        turns, places = np.divmod(positions, self.group)
        found = np.empty_like(places)
        for turn in np.unique(turns).tolist():
            here = turns == turn
            bucket, rank = self._locate(turn)
            found[here] = self.members[bucket][self.rounds[bucket].indices(rank * self.group + places[here])]
        return found
