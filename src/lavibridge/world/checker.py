"""Checks an image against a spec, clause by clause, exactly and without a learned part.

    picture --parse--> things + spec --> objects, color, shape, texture, size, count, relation, absence,
                                         place, binding, clean        all = every clause that applies

A clause that the prompt does not raise is `None`, never true. Each clause asks:

    objects    the picture has as many things as the prompt names, no fewer and no more
    color ...  every colour (shape, texture, size) named occurs as often as named, on any thing; a colour also
               counts on a part whose shape is unreadable
    count      each plural has its number of things of that shape
    binding    each thing has all attributes of one noun phrase, in a one-to-one assignment
    relation   the assigned things stand in the relation; false without an assignment
    place      the assigned things lie in the half that is named; false without an assignment
    absence    nothing that the prompt excludes is there; false while a part is unreadable
    clean      the picture has at least one thing, and every part is readable

After GenEval (Ghosh et al. 2023, arXiv 2310.11513) and T2I-CompBench (Huang et al. 2023, arXiv 2307.06350),
with rules instead of a model.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from lavibridge.world.detections import ParsedScene, SceneDetection
from lavibridge.world.pixel_regions import grow_region
from lavibridge.world.scene import CANVAS, SceneGroup, SceneRelation, SceneSpec, is_in_place
from lavibridge.world.scene_parser import parse_scene

CLAUSE_KINDS = (
    "objects",
    "color",
    "shape",
    "texture",
    "size",
    "count",
    "binding",
    "relation",
    "place",
    "absence",
    "clean",
)
_MARGIN = 4.0
"""Minimum distance in pixels between two centres along the axis of a direction."""
_MAX_TOUCHING_OVERLAP = 0.1
"""Maximum overlap of two touching things, as a fraction of the smaller one."""
_HOLE = 0.76
"""Radius of the hole of a ring that holds something, as a fraction of the ring's radius."""
_HOLE_SLACK = 1.5

Assignment = tuple[tuple[int, ...], ...]
"""For each group of the spec, the things assigned to it (indices into `ParsedScene.things`)."""


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """One answer and one reason for every clause that applies."""

    clauses: Mapping[str, bool]
    reasons: Mapping[str, str]
    parsed: ParsedScene

    def __getitem__(self, clause: str) -> bool | None:
        """Return the answer to a clause, or None if it does not apply. Raises KeyError for other names."""
        if clause not in CLAUSE_KINDS:
            raise KeyError(clause)
        return self.clauses.get(clause)

    @property
    def all(self) -> bool:
        """Whether every clause that applies holds."""
        return all(self.clauses.values())

    @property
    def soft(self) -> float:
        """Fraction of the applicable clauses that hold, in [0, 1]."""
        return sum(self.clauses.values()) / len(self.clauses)


def check_picture(picture: Image.Image | UInt8[ndarray, "height width 3"], spec: SceneSpec) -> CheckResult:
    """Parse a 64 x 64 picture and check every clause of the spec. Raises DataError at other sizes."""
    return _check_parsed(parse_scene(picture), spec)


def resize_to_canvas(picture: Image.Image) -> Image.Image:
    """Resize a picture to 64 x 64, the size that the checker reads."""
    if picture.size == (CANVAS, CANVAS):
        return picture
    return picture.resize((CANVAS, CANVAS), Image.Resampling.BOX)


def _check_parsed(parsed: ParsedScene, spec: SceneSpec) -> CheckResult:
    """Check every clause of the spec against a parsed scene."""
    answers: dict[str, tuple[bool, str]] = {"objects": _objects(parsed, spec)}
    for name in ("color", "shape", "texture", "size"):
        expected = Counter[str]()
        for group in spec.groups:
            if getattr(group, name) is not None:
                expected[getattr(group, name)] += group.count
        if expected:
            answers[name] = _attribute(parsed, name, expected)
    plurals = [group for group in spec.groups if group.count > 1]
    if plurals:
        answers["count"] = _count(parsed, plurals)
    answers |= _bound_clauses(parsed, spec)
    if spec.absent:
        answers["absence"] = _absence(parsed, spec)
    reasons = "; ".join(parsed.unreadable) or ("every part is readable" if parsed.things else "found nothing")
    answers["clean"] = not parsed.unreadable and bool(parsed.things), reasons
    ordered = {name: answers[name] for name in CLAUSE_KINDS if name in answers}
    return CheckResult(
        clauses={name: bool(answer) for name, (answer, _) in ordered.items()},
        reasons={name: reason for name, (_, reason) in ordered.items()},
        parsed=parsed,
    )


def _objects(parsed: ParsedScene, spec: SceneSpec) -> tuple[bool, str]:
    expected = sum(group.count for group in spec.groups)
    found = len(parsed.things) + len(parsed.unreadable)
    unreadable = f", {len(parsed.unreadable)} of them unreadable" if parsed.unreadable else ""
    return found == expected and not parsed.unreadable, f"expected {expected}, found {found}{unreadable}"


def _attribute(parsed: ParsedScene, name: str, expected: Counter[str]) -> tuple[bool, str]:
    found = Counter[str](getattr(thing, name) for thing in parsed.things)
    if name in ("color", "shape"):  # the colour of an unreadable part can be right as well
        found.update(known for part in parsed.partial if (known := getattr(part, name)) is not None)
    missing = expected - found
    if not missing:
        return True, f"found every {name} of the prompt: {', '.join(expected)}"
    return False, f"missing: {_list(missing)}; there: {_list(found) or 'nothing'}"


def _list(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _count(parsed: ParsedScene, plurals: list[SceneGroup]) -> tuple[bool, str]:
    answers, reasons = [], []
    for group in plurals:
        kind = SceneGroup(shape=group.shape) if group.shape else SceneGroup(color=group.color)
        found = sum(_has(thing, kind) for thing in parsed.things)
        answers.append(found == group.count)
        reasons.append(f"expected {group.count} {group.shape or group.color or 'things'}, found {found}")
    return all(answers), "; ".join(reasons)


def _bound_clauses(parsed: ParsedScene, spec: SceneSpec) -> dict[str, tuple[bool, str]]:
    """Check binding, relation and place under the assignment that satisfies most of them."""
    best: dict[str, tuple[bool, str]] = {}
    for bound in _assignments(parsed, spec):
        found = {"binding": (True, "each thing has its own attributes")}
        if spec.relation is not None:
            found["relation"] = _relation(parsed, bound, spec.relation)
        if any(group.place for group in spec.groups):
            found["place"] = _place(parsed, bound, spec)
        if sum(answer for answer, _ in found.values()) > sum(answer for answer, _ in best.values()):
            best = found
        if all(answer for answer, _ in best.values()):
            break
    if best:
        return best
    seen = "; ".join(f"{t.size} {t.texture} {t.color} {t.shape}" for t in parsed.things) or "nothing"
    best = {"binding": (False, f"no assignment of the things found ({seen})")}
    if spec.relation is not None:
        best["relation"] = False, f"'{spec.relation.name}' lacks its things"
    if any(group.place for group in spec.groups):
        best["place"] = False, "the placed thing is missing"
    return best


def _assignments(parsed: ParsedScene, spec: SceneSpec) -> Iterator[Assignment]:
    """Yield every way to give each group its number of matching things, using no thing twice."""
    slots = [(i, group) for i, group in enumerate(spec.groups) for _ in range(group.count)]
    options = [[j for j, thing in enumerate(parsed.things) if _has(thing, group)] for _, group in slots]

    def extend(chosen: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        k = len(chosen)
        if k == len(slots):
            yield chosen
            return
        # Things of one group are interchangeable: ascending order visits each choice once.
        floor = chosen[-1] if k and slots[k][0] == slots[k - 1][0] else -1
        for j in options[k]:
            if j > floor and j not in chosen:
                yield from extend((*chosen, j))

    for chosen in extend(()):
        yield tuple(
            tuple(j for j, (i, _) in zip(chosen, slots, strict=True) if i == g)
            for g in range(len(spec.groups))
        )


def _has(thing: SceneDetection, group: SceneGroup) -> bool:
    """Whether a thing has every attribute that the group names, apart from its place."""
    names = ("shape", "color", "texture", "size")
    return all(getattr(group, name) in (None, getattr(thing, name)) for name in names)


def _relation(parsed: ParsedScene, bound: Assignment, relation: SceneRelation) -> tuple[bool, str]:
    pairs = list(product(bound[relation.subject], bound[relation.object]))
    holds = all(_relates(parsed, subject, other, relation.name) for subject, other in pairs)
    centers = [tuple(round(c) for c in parsed.things[j].center) for j in pairs[0]]
    return (
        holds,
        f"'{relation.name}' {'holds' if holds else 'does not hold'}: centres {centers[0]}, {centers[1]}",
    )


def _relates(parsed: ParsedScene, subject: int, other: int, name: str) -> bool:
    """Whether one thing stands in a relation to another (indices into `parsed.things`)."""
    a, b = parsed.things[subject], parsed.things[other]
    if name == "touching":
        return _touch(a, b)
    if name == "inside":
        return _is_inside(a, b)
    if name == "in front of":
        return (subject, other) in parsed.occlusions
    (x, y), (u, v) = a.center, b.center
    along, across = {
        "left of": (u - x, y - v),
        "right of": (x - u, y - v),
        "above": (v - y, x - u),
        "below": (y - v, x - u),
    }[name]
    return along >= _MARGIN and along >= abs(across)


def _touch(a: SceneDetection, b: SceneDetection) -> bool:
    """Whether two things come within two pixels of each other and hardly overlap."""
    shared = (a.region & b.region).sum() / min(a.region.sum(), b.region.sum())
    near = grow_region(a.visible | a.region) & grow_region(b.visible | b.region)
    return bool(near.any() and shared <= _MAX_TOUCHING_OVERLAP)


def _is_inside(thing: SceneDetection, ring: SceneDetection) -> bool:
    """Whether a whole thing lies in the hole of a ring."""
    if ring.shape != "ring":
        return False
    hole = _HOLE if ring.size == "huge" else 0.5
    rows, columns = np.nonzero(thing.region)
    x, y = ring.center
    distance = np.hypot(columns + 0.5 - x, rows + 0.5 - y)
    return bool(distance.max() <= hole * ring.side / 2 + _HOLE_SLACK)


def _place(parsed: ParsedScene, bound: Assignment, spec: SceneSpec) -> tuple[bool, str]:
    answers, reasons = [], []
    for group, things in zip(spec.groups, bound, strict=True):
        if group.place is None:
            continue
        centers = [parsed.things[j].center for j in things]
        answers.append(all(is_in_place(center, group.place) for center in centers))
        reasons.append(f"expected '{group.place}', found its centre at {tuple(round(c) for c in centers[0])}")
    return all(answers), "; ".join(reasons)


def _absence(parsed: ParsedScene, spec: SceneSpec) -> tuple[bool, str]:
    if parsed.unreadable:
        return False, "cannot be told while a part is unreadable"
    for group in spec.absent:
        for thing in parsed.things:
            if _has(thing, group):
                return False, f"found a {thing.color} {thing.shape}"
    return True, "found none of it"
