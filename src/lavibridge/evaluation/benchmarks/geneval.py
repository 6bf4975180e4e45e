"""GenEval's rules: the required objects, with their counts, colours and positions, and no excluded ones.

    there     at least n boxes of a name; the n most confident ones count
    colour    n of these have the colour, by a classifier of crops
    place     every one of these has the position relative to every target object
    excluded  fewer than m boxes of a name (so "three cups" excludes four)
    correct   all of these

    position of a to b: o = centre(a) - centre(b), shortened by a tenth of both sizes in each direction,
    divided by the original length of o: left x < -0.5, right x > 0.5, above y < -0.5, below y > 0.5

Ghosh, Hajishirzi and Schmidt 2023, GenEval, arXiv 2310.11513. The published detector is Mask2Former with
confidence above 0.3, above 0.9 for counting, and at most 16 boxes per name.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lavibridge.evaluation.benchmarks.boxes import Box, sort_boxes_by_score

GENEVAL_COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
GENEVAL_PLACES = ("left of", "right of", "above", "below")
_MAX_BOXES = 16
_DEAD_ZONE = 0.1

Classify = Callable[[Sequence[Box], str], Sequence[str]]
"""Classifies the colours of boxes of one name."""


@dataclass(frozen=True, kw_only=True)
class GenEvalObject:
    """An object that a prompt requires or excludes."""

    name: str
    count: int
    color: str | None = None
    place: str | None = None
    """Its position relative to the object number `target` of the prompt."""
    target: int | None = None


@dataclass(frozen=True, kw_only=True)
class GenEvalRequirements:
    """All objects that a prompt requires and excludes."""

    include: tuple[GenEvalObject, ...]
    exclude: tuple[GenEvalObject, ...] = ()
    is_counting: bool = False
    """Whether to apply the confidence threshold of counting."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all objects, without duplicates."""
        return tuple(dict.fromkeys(thing.name for thing in (*self.include, *self.exclude)))


def read_geneval_requirements(record: Mapping[str, Any]) -> GenEvalRequirements:
    """A line of the benchmark's `evaluation_metadata.jsonl`. Raises ValueError if it is invalid."""
    include = tuple(_read_thing(each, number) for number, each in enumerate(record["include"]))
    exclude = tuple(_read_thing(each, 0) for each in record.get("exclude", ()))
    if not include:
        raise ValueError("`include` is empty")
    return GenEvalRequirements(include=include, exclude=exclude, is_counting=record["tag"] == "counting")


def check_geneval_requirements(
    required: GenEvalRequirements, boxes: Sequence[Box], classify: Classify
) -> tuple[dict[str, bool], list[str]]:
    """Whether each kind of clause holds, and the violations in words."""
    holds: dict[str, bool] = {}
    wrong: list[str] = []
    groups: list[list[Box]] = []
    for thing in required.include:
        found = sort_boxes_by_score(boxes, thing.name)[: min(thing.count, _MAX_BOXES)]
        faults = _faults(thing, found, groups, classify)
        for clause, fault in faults.items():
            holds[clause] = holds.get(clause, True) and not fault
        wrong += [fault for fault in faults.values() if fault]
        groups.append([] if any(faults.values()) else found)
    for thing in required.exclude:
        number = len(sort_boxes_by_score(boxes, thing.name)[:_MAX_BOXES])
        holds["excluded"] = holds.get("excluded", True) and number < thing.count
        if number >= thing.count:
            wrong.append(f"expected fewer than {thing.count} {thing.name}, found {number}")
    return holds, wrong


def geneval_positions(a: Box, b: Box) -> set[str]:
    """The position of `a` relative to `b`: up to two of left of, right of, above and below."""
    offset = [a.centre[i] - b.centre[i] for i in (0, 1)]
    lengths = [max(abs(offset[i]) - _DEAD_ZONE * (a.size[i] + b.size[i]), 0.0) for i in (0, 1)]
    shortened = [math.copysign(lengths[i], offset[i]) for i in (0, 1)]
    if all(abs(each) < 1e-3 for each in shortened):
        return set()
    x, y = (each / math.hypot(*offset) for each in shortened)
    holds = {"left of": x < -0.5, "right of": x > 0.5, "above": y < -0.5, "below": y > 0.5}
    return {place for place, is_so in holds.items() if is_so}


def _faults(
    thing: GenEvalObject, found: list[Box], groups: list[list[Box]], classify: Classify
) -> dict[str, str]:
    """The violation by clause, empty if it holds. An object that fails is no target for others."""
    few = len(found) < thing.count
    faults = {"there": f"expected {thing.count} {thing.name}, found {len(found)}" if few else ""}
    if thing.color is not None:
        colors = [] if few else list(classify(found, thing.name))
        right = colors.count(thing.color)
        fault = f"expected {thing.count} {thing.color} {thing.name}, found {', '.join(colors) or 'none'}"
        faults["color"] = fault if right < thing.count else ""
    if thing.place is not None and thing.target is not None:
        targets = groups[thing.target]
        holds = bool(targets) and not any(faults.values())
        holds = holds and all(thing.place in geneval_positions(a, b) for a in found for b in targets)
        faults["place"] = "" if holds else f"expected {thing.name} {thing.place} its target"
    return faults


def _read_thing(record: Mapping[str, Any], number: int) -> GenEvalObject:
    name, count, color = record["class"], record["count"], record.get("color")
    place, target = record.get("position") or (None, None)
    if not isinstance(name, str) or not name or not isinstance(count, int) or count < 1:
        raise ValueError(f"an object needs a `class` and a `count` of at least 1, found {dict(record)}")
    if color is not None and color not in GENEVAL_COLORS:
        raise ValueError(f"`color` is one of {', '.join(GENEVAL_COLORS)}, found '{color}'")
    if place is not None and (
        place not in GENEVAL_PLACES or not isinstance(target, int) or not 0 <= target < number
    ):
        raise ValueError(
            f"`position` is [one of {', '.join(GENEVAL_PLACES)}, index of an earlier object], found {place}, "
            f"{target}"
        )
    return GenEvalObject(name=name, count=count, color=color, place=place, target=target)
