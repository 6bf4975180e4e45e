"""Places things on the canvas so that a spec holds with a margin.

Uses rejection sampling and never returns a borderline scene. Things keep `GAP` pixels between their boxes
unless an interaction brings them together.
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from lavibridge.world.drawing import draw_placed_mask
from lavibridge.world.scene import CANVAS, DIRECTIONS, Scene, SceneRelation, Thing

_GAP = 3
_DIRECTION_MARGIN = 12.0
"""Minimum distance in pixels between two centres along the axis of their direction."""
_DOMINANCE = 1.25
"""Minimum ratio of the distance along the axis of a direction to the distance across it."""
_PLACE_MARGIN = 4.0
"""Minimum distance in pixels of a centre from the middle line of the half that the caption names."""
_ATTEMPTS = 80


def lay_out_things(
    rng: np.random.Generator, things: list[Thing], relation: SceneRelation | None, places: list[str | None]
) -> Scene | None:
    """Give the things positions. Returns None if no attempt succeeds.

    Each item of `things` is a single thing: the caller has already expanded groups. `relation` indexes into
    `things`.
    """
    if relation is not None and relation.name not in DIRECTIONS:
        pair = _place_interaction(rng, things[relation.subject], things[relation.object], relation.name)
        return None if pair is None or len(things) > 2 else Scene(things=pair)
    sides = np.array([thing.side for thing in things])
    corners = rng.integers(1, CANVAS - sides[:, None], size=(_ATTEMPTS, len(things), 2))  # left, top
    good = _apart(corners, sides) & _in_clear_places(corners + sides[:, None] / 2, places)
    if relation is not None:
        centers = corners + sides[:, None] / 2
        good &= is_clear_direction(centers[:, relation.subject], centers[:, relation.object], relation.name)
    if not good.any():
        return None
    chosen = corners[int(good.argmax())].tolist()
    return Scene(things=tuple(_at(thing, *corner) for thing, corner in zip(things, chosen, strict=True)))


def is_clear_direction(
    subject: Float[ndarray, "*many 2"], other: Float[ndarray, "*many 2"], direction: str
) -> Bool[ndarray, "*many"]:
    """Whether the direction between two centres (x, y) is unambiguous."""
    dx, dy = np.moveaxis(np.asarray(other) - np.asarray(subject), -1, 0)
    along, across = {"left of": (dx, dy), "right of": (-dx, dy), "above": (dy, dx), "below": (-dy, dx)}[
        direction
    ]
    return np.asarray((along >= _DIRECTION_MARGIN) & (along >= _DOMINANCE * np.abs(across)))


def _place_interaction(
    rng: np.random.Generator, subject: Thing, other: Thing, name: str
) -> tuple[Thing, ...] | None:
    """Place two things that touch, or one inside or in front of the other; return them in drawing order."""
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


def _apart(
    corners: Int[ndarray, "attempt thing 2"], sides: Int[ndarray, " thing"]
) -> Bool[ndarray, " attempt"]:
    """Return, for each attempt, whether all boxes keep their gap."""
    good = np.ones(len(corners), dtype=bool)
    for i in range(len(sides)):
        for j in range(i):
            after = corners[:, i] >= corners[:, j] + sides[j] + _GAP
            before = corners[:, j] >= corners[:, i] + sides[i] + _GAP
            good &= (after | before).any(axis=1)
    return good


def _in_clear_places(
    centers: Float[ndarray, "attempt thing 2"], places: list[str | None]
) -> Bool[ndarray, " attempt"]:
    """Return, for each attempt, whether each thing with a named half lies at least `_PLACE_MARGIN` pixels
    inside it."""
    good = np.ones(len(centers), dtype=bool)
    for i, place in enumerate(places):
        if place is not None:
            offset = centers[:, i, 0 if place in ("left", "right") else 1] - CANVAS / 2
            good &= (offset <= -_PLACE_MARGIN) if place in ("left", "top") else (offset >= _PLACE_MARGIN)
    return good


def _fits(thing: Thing) -> bool:
    return 1 <= thing.left <= CANVAS - thing.side - 1 and 1 <= thing.top <= CANVAS - thing.side - 1


def _inside(rng: np.random.Generator, subject: Thing, ring: Thing) -> tuple[Thing, ...]:
    """Place the subject in the middle of a huge ring, at most one pixel off."""
    ring = _drop(rng, ring)
    offset = (ring.side - subject.side) // 2
    dx, dy = rng.integers(-1, 2, size=2)
    return ring, _at(subject, ring.left + offset + int(dx), ring.top + offset + int(dy))


def _in_front(rng: np.random.Generator, front: Thing, back: Thing) -> tuple[Thing, ...] | None:
    """Place the front thing so that it covers between 8 and 45 % of the back one, near a corner."""
    for _ in range(_ATTEMPTS):
        back, front = _drop(rng, back), _drop(rng, front)
        behind, before = draw_placed_mask(back), draw_placed_mask(front)
        share = (behind & before).sum() / behind.sum()
        if 0.08 <= share <= 0.45 and (before & ~behind).sum() >= 0.25 * before.sum():
            return back, front
    return None


def _touching(rng: np.random.Generator, subject: Thing, other: Thing) -> tuple[Thing, ...] | None:
    """Push two things together, side by side or stacked, until their masks meet without overlap."""
    for _ in range(_ATTEMPTS):
        still = _drop(rng, other)
        stacked, first = rng.integers(0, 2, size=2)
        shift = (still.side - subject.side) // 2
        for distance in range(max(still.side, subject.side) + 2, 0, -1):
            step = -distance if first else distance
            along = step + shift
            left, top = (
                (still.left + shift, still.top + along)
                if stacked
                else (still.left + along, still.top + shift)
            )
            moved = _at(subject, left, top)
            if not _fits(moved):
                continue
            if (draw_placed_mask(moved) & draw_placed_mask(still)).any():
                break
            if _meet(moved, still):
                return still, moved
    return None


def _meet(a: Thing, b: Thing) -> bool:
    """Whether a pixel of one mask is next to a pixel of the other (4-neighbours)."""
    reach = draw_placed_mask(a)
    grown = reach.copy()
    grown[1:] |= reach[:-1]
    grown[:-1] |= reach[1:]
    grown[:, 1:] |= reach[:, :-1]
    grown[:, :-1] |= reach[:, 1:]
    return bool((grown & draw_placed_mask(b)).any())
