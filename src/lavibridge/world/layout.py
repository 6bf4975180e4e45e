"""Places things on the canvas so that a spec holds with room to spare.

Placement is rejection sampling: a scene whose truth would be borderline is never made. Things keep a gap of
`GAP` pixels between their boxes unless an interaction brings them together.
"""

import numpy as np

from lavibridge.world.drawing import placed_mask
from lavibridge.world.scene import CANVAS, DIRECTIONS, PLACES, Relation, Scene, Thing, in_place

GAP = 3
DIRECTION_MARGIN = 12.0
"""Least distance in pixels between two centres along the axis of their direction."""
DOMINANCE = 1.25
"""How many times the distance along the axis of a direction exceeds the one across it, at least."""
ATTEMPTS = 80


def lay_out(
    rng: np.random.Generator, things: list[Thing], relation: Relation | None, places: list[str | None]
) -> Scene | None:
    """Give the things positions; `relation` indexes into `things`. None when no place was found.

    Every item of `things` has a count of one here: the caller has expanded groups already.
    """
    if relation is not None and relation.name not in DIRECTIONS:
        pair = interact(rng, things[relation.subject], things[relation.object], relation.name)
        rest = [thing for i, thing in enumerate(things) if i not in (relation.subject, relation.object)]
        return None if pair is None or rest else Scene(things=pair)
    for _ in range(ATTEMPTS):
        placed = [_drop(rng, thing) for thing in things]
        if relation is not None and not is_clear(placed[relation.subject], placed[relation.object], relation.name):
            continue
        if _apart(placed) and all(map(_in_clear_place, placed, places)):
            return Scene(things=tuple(placed))
    return None


def is_clear(subject: Thing, other: Thing, direction: str) -> bool:
    """Whether the direction between two centres is beyond doubt."""
    (x, y), (u, v) = subject.center, other.center
    along, across = {
        "left of": (u - x, y - v),
        "right of": (x - u, y - v),
        "above": (v - y, x - u),
        "below": (y - v, x - u),
    }[direction]
    return along >= DIRECTION_MARGIN and along >= DOMINANCE * abs(across)


def interact(rng: np.random.Generator, subject: Thing, other: Thing, name: str) -> tuple[Thing, ...] | None:
    """Two things that touch, or one inside or in front of the other, in drawing order."""
    if name == "inside":
        return _inside(rng, subject, other)
    if name == "in front of":
        return _in_front(rng, subject, other)
    return _touching(rng, subject, other)


def _drop(rng: np.random.Generator, thing: Thing) -> Thing:
    left, top = rng.integers(1, CANVAS - thing.side, size=2)
    return _at(thing, int(left), int(top))


def _at(thing: Thing, left: int, top: int) -> Thing:
    return Thing(
        shape=thing.shape, color=thing.color, texture=thing.texture, size=thing.size, left=left, top=top
    )


def _apart(things: list[Thing]) -> bool:
    for i, a in enumerate(things):
        for b in things[:i]:
            clear_x = a.left + a.side + GAP <= b.left or b.left + b.side + GAP <= a.left
            clear_y = a.top + a.side + GAP <= b.top or b.top + b.side + GAP <= a.top
            if not (clear_x or clear_y):
                return False
    return True


def _in_clear_place(thing: Thing, place: str | None) -> bool:
    """Whether the centre is at least four pixels inside the half that was promised."""
    if place is None:
        return True
    x, y = thing.center
    offset = abs((x if place in PLACES[:2] else y) - CANVAS / 2)
    return in_place(thing.center, place) and offset >= 4


def _fits(thing: Thing) -> bool:
    return 1 <= thing.left <= CANVAS - thing.side - 1 and 1 <= thing.top <= CANVAS - thing.side - 1


def _inside(rng: np.random.Generator, subject: Thing, ring: Thing) -> tuple[Thing, ...]:
    """The subject in the middle of a huge ring, one pixel off at most."""
    ring = _drop(rng, ring)
    offset = (ring.side - subject.side) // 2
    dx, dy = rng.integers(-1, 2, size=2)
    return ring, _at(subject, ring.left + offset + int(dx), ring.top + offset + int(dy))


def _in_front(rng: np.random.Generator, front: Thing, back: Thing) -> tuple[Thing, ...] | None:
    """The front thing covers between 8 and 45 % of the back one, near a corner."""
    for _ in range(ATTEMPTS):
        back, front = _drop(rng, back), _drop(rng, front)
        behind, before = placed_mask(back), placed_mask(front)
        share = (behind & before).sum() / behind.sum()
        if 0.08 <= share <= 0.45 and (before & ~behind).sum() >= 0.25 * before.sum():
            return back, front
    return None


def _touching(rng: np.random.Generator, subject: Thing, other: Thing) -> tuple[Thing, ...] | None:
    """Side by side or one upon the other: pushed together until the masks meet without overlapping."""
    for _ in range(ATTEMPTS):
        still = _drop(rng, other)
        stacked, first = rng.integers(0, 2, size=2)
        shift = (still.side - subject.side) // 2
        for distance in range(max(still.side, subject.side) + 2, 0, -1):
            step = -distance if first else distance
            along = step + shift
            left, top = (still.left + shift, still.top + along) if stacked else (still.left + along, still.top + shift)
            moved = _at(subject, left, top)
            if not _fits(moved):
                continue
            if (placed_mask(moved) & placed_mask(still)).any():
                break
            if _meet(moved, still):
                return still, moved
    return None


def _meet(a: Thing, b: Thing) -> bool:
    """Whether a pixel of one mask is next to a pixel of the other (4-neighbours)."""
    reach = placed_mask(a)
    grown = reach.copy()
    grown[1:] |= reach[:-1]
    grown[:-1] |= reach[1:]
    grown[:, 1:] |= reach[:, :-1]
    grown[:, :-1] |= reach[:, 1:]
    return bool((grown & placed_mask(b)).any())
