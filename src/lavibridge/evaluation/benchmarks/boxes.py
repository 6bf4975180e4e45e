"""Bounding boxes of detected objects, and their overlap.

intersection over union   area(a and b) / area(a or b)                0 disjoint .. 1 identical
duplicates                two boxes of one name with IoU > 0.9, or with > 0.9 of one inside the other
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool

_SAME = 0.9
"""The overlap above which two boxes of one name are one object."""


@dataclass(frozen=True, kw_only=True)
class Box:
    """A detected object, in pixels from the picture's top left corner."""

    name: str
    score: float
    """The detector's confidence, 0 to 1."""
    left: float
    top: float
    right: float
    bottom: float
    mask: Bool[np.ndarray, "height width"] | None = None
    """The object's pixels in the whole picture, if the detector segments."""

    @property
    def centre(self) -> tuple[float, float]:
        """The centre, x and y."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    @property
    def size(self) -> tuple[float, float]:
        """Width and height."""
        return abs(self.right - self.left), abs(self.bottom - self.top)

    @property
    def area(self) -> float:
        """Area in square pixels."""
        return self.size[0] * self.size[1]

    def record(self) -> list[str | float]:
        """The box as JSON: name, score, left, top, right, bottom."""
        numbers = (self.score, self.left, self.top, self.right, self.bottom)
        return [self.name, *(round(number, 3) for number in numbers)]


def box_overlap(a: Box, b: Box) -> float:
    """The common area of two boxes, in square pixels."""
    width = min(a.right, b.right) - max(a.left, b.left)
    height = min(a.bottom, b.bottom) - max(a.top, b.top)
    return max(width, 0.0) * max(height, 0.0)


def intersection_over_union(a: Box, b: Box) -> float:
    """The common area divided by the joint area; 0 for boxes without area."""
    shared = box_overlap(a, b)
    union = a.area + b.area - shared
    return shared / union if union > 0 else 0.0


def without_duplicate_boxes(boxes: Sequence[Box]) -> list[Box]:
    """The boxes by descending confidence, without duplicates of a more confident box of the same name."""
    kept: list[Box] = []
    for box in sort_boxes_by_score(boxes):
        if not any(box.name == other.name and _same(box, other) for other in kept):
            kept.append(box)
    return kept


def sort_boxes_by_score(boxes: Sequence[Box], name: str | None = None) -> list[Box]:
    """The boxes by descending confidence, optionally of one name only."""
    chosen = [box for box in boxes if name is None or box.name == name]
    return sorted(chosen, key=lambda box: -box.score)


def scale_box(box: Box, factor: float) -> Box:
    """The box in a picture `factor` times as large, without its mask, which no rule needs."""
    left, top, right, bottom = (side * factor for side in (box.left, box.top, box.right, box.bottom))
    return replace(box, left=left, top=top, right=right, bottom=bottom, mask=None)


def _same(a: Box, b: Box) -> bool:
    shared = box_overlap(a, b)
    smaller = min(a.area, b.area)
    return intersection_over_union(a, b) > _SAME or (smaller > 0 and shared / smaller > _SAME)
