"""T2I-CompBench's rule for "a cat on the left of a sofa": both objects detected, in the right relation.

    score = confidence(a) / 4 + confidence(b) / 4 + relation(a, b) / 2        0 if below 0.5
    a or b not found: confidence / 4, which is below 0.5 and therefore 0

    left     1 if the centre of b lies to the right, more sideways than up or down; 0.1 / IoU if IoU > 0.1;
             right, top and bottom alike
    near     1 within 150 pixels horizontally or vertically, else 150 / the larger of the two distances

Pixels refer to the published detector's input: short side 479, long side at most 480.

Huang et al. 2023, T2I-CompBench, arXiv 2307.06350. Two details differ from the published script, which finds
"on top of" in a prompt but has no rule for it (such pictures score 0 there), and which counts one cat as both
in "a cat next to a cat". Its detector is UniDet; scores with other detectors are not comparable to it.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lavibridge.evaluation.benchmarks.boxes import (
    Box,
    intersection_over_union,
    scale_box,
    sort_boxes_by_score,
)
from lavibridge.evaluation.benchmarks.phrases import noun_phrases, phrase_head

Where = Literal["near", "left", "right", "top", "bottom"]

_IOU = 0.1
_DISTANCE = 150.0
_SHORT, _LONG = 479.0, 480.0
_FLOOR = 0.5

_RELATIONS: tuple[tuple[Where, str], ...] = (
    ("near", r"on (?:the )?side of"),
    ("near", r"next to"),
    ("near", r"near"),
    ("left", r"(?:on|to) the left(?: side)? of"),
    ("right", r"(?:on|to) the right(?: side)? of"),
    ("bottom", r"(?:on|at) (?:the )?bottom of"),
    ("top", r"(?:on|at) (?:the )?top of"),
)


@dataclass(frozen=True, kw_only=True)
class SpatialRelation:
    """A prompt's relation between two objects."""

    first: str
    where: Where
    second: str


def read_spatial_relation(prompt: str) -> SpatialRelation | None:
    """The first relation in a prompt, with the objects before and after it; None if there is none."""
    found = [(match, where) for where, words in _RELATIONS if (match := re.search(rf"\b{words}\b", prompt))]
    if not found:
        return None
    match, where = min(found, key=lambda pair: pair[0].start())
    before, after = noun_phrases(prompt[: match.start()]), noun_phrases(prompt[match.end() :])
    if not before or not after:
        return None
    return SpatialRelation(first=phrase_head(before[-1]), where=where, second=phrase_head(after[0]))


def spatial_relation_score(where: Where, a: Box, b: Box) -> float:
    """How well `a` satisfies the relation to `b`, 0 to 1; boxes in pixels of the published input size."""
    dx, dy = b.centre[0] - a.centre[0], b.centre[1] - a.centre[1]
    if where == "near":
        close = abs(dx) < _DISTANCE or abs(dy) < _DISTANCE
        return 1.0 if close else _DISTANCE / max(abs(dx), abs(dy))
    ahead, aside = {"left": (dx, dy), "right": (-dx, dy), "top": (dy, dx), "bottom": (-dy, dx)}[where]
    if ahead <= abs(aside):
        return 0.0
    shared = intersection_over_union(a, b)
    return 1.0 if shared < _IOU else _IOU / shared


def spatial_score(relation: SpatialRelation, boxes: Sequence[Box], width: int, height: int) -> float:
    """The score of a picture of `width` x `height` pixels, 0 to 1."""
    factor = min(_SHORT / min(width, height), _LONG / max(width, height))
    found = [scale_box(box, factor) for box in boxes]
    first, second = sort_boxes_by_score(found, relation.first), sort_boxes_by_score(found, relation.second)
    if relation.first == relation.second:
        second = second[1:]
    if not first or not second:
        return 0.0
    a, b = first[0], second[0]
    score = a.score / 4 + b.score / 4 + spatial_relation_score(relation.where, a, b) / 2
    return 0.0 if score < _FLOOR and not math.isclose(score, _FLOOR) else score
