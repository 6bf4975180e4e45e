"""Boxes around what a detector found, and how they lie to each other.

intersection over union   area(a and b) / area(a or b)                0 apart .. 1 the same
duplicates                two boxes of one name with IoU > 0.9, or one of them for > 0.9 inside the other
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool

SAME = 0.9
"""The share of overlap above which two boxes of one name are one thing."""


@dataclass(frozen=True, kw_only=True)
class Box:
    """One thing that a detector found, in pixels from the picture's left top corner."""

    name: str
    score: float
    """How sure the detector is, 0 to 1."""
    left: float
    top: float
    right: float
    bottom: float
    mask: Bool[np.ndarray, "height width"] | None = None
    """The pixels of the thing in the whole picture, where the detector tells them."""

    @property
    def centre(self) -> tuple[float, float]:
        """The middle, x and y."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    @property
    def size(self) -> tuple[float, float]:
        """Width and height."""
        return abs(self.right - self.left), abs(self.bottom - self.top)

    @property
    def area(self) -> float:
        """In square pixels."""
        return self.size[0] * self.size[1]

    def record(self) -> list[str | float]:
        """The box as JSON: name, score, left, top, right, bottom."""
        numbers = (self.score, self.left, self.top, self.right, self.bottom)
        return [self.name, *(round(number, 3) for number in numbers)]


def overlap(a: Box, b: Box) -> float:
    """The area that two boxes share, in square pixels."""
    width = min(a.right, b.right) - max(a.left, b.left)
    height = min(a.bottom, b.bottom) - max(a.top, b.top)
    return max(width, 0.0) * max(height, 0.0)


def intersection_over_union(a: Box, b: Box) -> float:
    """The share of the area of two boxes that they have in common; 0 for boxes without area."""
    shared = overlap(a, b)
    union = a.area + b.area - shared
    return shared / union if union > 0 else 0.0


def without_duplicates(boxes: Sequence[Box]) -> list[Box]:
    """The boxes from the surest on, without those that show again what a surer one of their name shows."""
    kept: list[Box] = []
    for box in by_score(boxes):
        if not any(box.name == other.name and _same(box, other) for other in kept):
            kept.append(box)
    return kept


def by_score(boxes: Sequence[Box], name: str | None = None) -> list[Box]:
    """The boxes from the surest on; with a name only those of this name."""
    chosen = [box for box in boxes if name is None or box.name == name]
    return sorted(chosen, key=lambda box: -box.score)


def scaled(box: Box, factor: float) -> Box:
    """The box in a picture that is `factor` times as large; the mask, which no rule scales, is left out."""
    left, top, right, bottom = (side * factor for side in (box.left, box.top, box.right, box.bottom))
    return replace(box, left=left, top=top, right=right, bottom=bottom, mask=None)


def _same(a: Box, b: Box) -> bool:
    shared = overlap(a, b)
    smaller = min(a.area, b.area)
    return intersection_over_union(a, b) > SAME or (smaller > 0 and shared / smaller > SAME)
