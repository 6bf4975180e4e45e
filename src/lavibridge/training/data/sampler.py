"""Chooses the image of each position, its shape and whether it is mirrored, with its name and captions.

    positions -> order -> index -> shape of its bucket          one size for all if there are no buckets
                                -> captions -> mirrored?        half of the visits, with `data.flip`

An image is never mirrored if one of its captions mentions left or right, or a direction of rotation, because
the caption would be wrong for the mirror image.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lavibridge.core.seeds import mix_seeds
from lavibridge.data.base import Dataset, Sample
from lavibridge.training.data.bucketed import DEFAULT_BUCKETS, Bucketed, bucket_shapes, nearest_buckets
from lavibridge.training.data.order import SampleOrder, ShuffledOrder, WeightedOrder

_FLIP = 3
"""Mixed with the position to keep the random choice of mirroring apart from others."""
# "left", "Right-hand", "leftmost", "rightwards", "upper_left"; but not "bright", "copyright" or "cleft".
_SIDED = re.compile(r"(?<![^\W_])(left|right|((anti|counter)[\s-]?)?clockwise)", re.IGNORECASE)
_UNSEEN = dict.fromkeys((0x00AD, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF))
"""Soft hyphens, joiners and zero-width spaces, which may occur inside a word."""


@dataclass(frozen=True, kw_only=True)
class Visit:
    """One visit of an image: exactly what determines the autoencoder's input."""

    index: int
    size: tuple[int, int]
    """Height and width in pixels."""
    flipped: bool = False
    """Whether left and right are swapped."""


def mentions_a_side(captions: Sequence[str]) -> bool:
    """Whether one of the captions may be wrong for the mirror image (English words only)."""
    return any(
        _SIDED.search(unicodedata.normalize("NFKC", caption).translate(_UNSEEN)) for caption in captions
    )


class VisitSampler:
    """Visits by position, as a function of the data, the seed and, with buckets, the size of a pass."""

    def __init__(self, dataset: Dataset, seed: int, size: tuple[int, int], unit: int, group: int) -> None:
        self.dataset = dataset
        self.seed = seed
        self.flip = dataset.config.flip
        self.shapes = [size]
        self.shape_of = np.zeros(0, dtype=np.int64)
        if dataset.config.buckets:
            wanted = DEFAULT_BUCKETS if dataset.config.buckets is True else dataset.config.buckets
            self.shapes = bucket_shapes(size, unit, wanted)
            self.shape_of = nearest_buckets(dataset.sizes(), self.shapes)
        self.order = self._order(group)

    def _order(self, group: int) -> SampleOrder:
        parts = self.dataset.parts()
        if len(parts) == 1:
            return self._part(0, len(self.dataset), group, self.seed)
        unit = group if len(self.shape_of) else 1
        starts = np.cumsum([0, *(part.count for part in parts)]).tolist()
        orders = [
            self._part(start, part.count, group, mix_seeds(self.seed, number))
            for number, (start, part) in enumerate(zip(starts, parts, strict=False))
        ]
        return WeightedOrder(orders, [part.weight for part in parts], unit, self.seed)

    def _part(self, start: int, count: int, group: int, seed: int) -> SampleOrder:
        if not len(self.shape_of):
            return ShuffledOrder(count, seed)
        return Bucketed(self.shape_of[start : start + count], group, seed)

    def at(self, positions: range) -> list[tuple[Visit, Sample]]:
        """The visits of some positions, each with its sample."""
        found = []
        for position, index in zip(positions, self.order.indices(np.array(positions)).tolist(), strict=True):
            sample = self.dataset.sample(index)
            flipped = (
                self.flip
                and mix_seeds(self.seed, position, _FLIP) % 2 == 1
                and not mentions_a_side(sample.captions)
            )
            found.append((Visit(index=index, size=self.size_of(index), flipped=flipped), sample))
        return found

    def size_of(self, index: int) -> tuple[int, int]:
        """Height and width of an image, the same at every visit."""
        return self.shapes[int(self.shape_of[index])] if len(self.shape_of) else self.shapes[0]
