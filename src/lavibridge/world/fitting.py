"""Finds the shape, size, place and texture that best explain a set of pixels, by exhaustive search.

    overlap(T) = |S & T| / |S | T|   over pixels that nothing hides

S is the set of visible pixels. T is a shape of the world at some side and place, drawn by the code that draws
the pictures. The search covers sides a few pixels around the world's sizes, because generated things are
never exact.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, Float32
from numpy import ndarray
from numpy.lib.stride_tricks import sliding_window_view

from lavibridge.world.drawing import draw_mask
from lavibridge.world.scene import CANVAS, SHAPES, SIZES

_SIDES: dict[str, range] = {"small": range(15, 23), "large": range(24, 34), "huge": range(42, 51)}
"""Sides in pixels that count as each size."""
_SIDE_SLACK = 2
"""Maximum difference in pixels between the side of a shape and the extent of its visible pixels."""
_PLACE_SLACK = 2
_MIN_VISIBLE = 0.45
"""Minimum fraction of a shape that must be visible; less could be anything."""
_SIDE_PRIOR = 0.006
"""Overlap subtracted per pixel of distance to the nearest nominal size, to break near ties."""

_STRIPED, _CHECKERED, _SOLID = "striped", "checkered", "solid"
_PHASE_SLACK = 2
"""Pixels that a pattern may shift for free; any other shift costs `_PHASE_COST`."""
_PHASE_COST = 0.05
_MIN_AGREEMENT = {_SOLID: 0.87, _STRIPED: 0.8, _CHECKERED: 0.8}
"""Minimum fraction of a thing's pixels that must have the tone of its texture."""


@dataclass(frozen=True, kw_only=True)
class ShapeFit:
    """A shape at a place, its overlap, and its lead over the best other shape."""

    shape: str
    side: int
    left: int
    top: int
    overlap: float
    lead: float

    @property
    def size(self) -> str:
        """The name of the size that the side counts as."""
        return next(name for name, sides in _SIDES.items() if self.side in sides)

    def region(self) -> Bool[ndarray, "64 64"]:
        """Return the shape's pixels on the canvas, cut at its border."""
        padded = np.zeros((CANVAS + 2 * _PLACE_SLACK,) * 2, dtype=bool)
        top, left = self.top + _PLACE_SLACK, self.left + _PLACE_SLACK
        padded[top : top + self.side, left : left + self.side] = _shape_template(self.shape, self.side)
        return padded[_PLACE_SLACK:-_PLACE_SLACK, _PLACE_SLACK:-_PLACE_SLACK]


@cache
def _shape_template(shape: str, side: int) -> Bool[ndarray, "side side"]:
    """Return a shape as pixels of a box of any side. A ring of huge side has the wide hole."""
    if side not in _SIDES["huge"]:
        return draw_mask(shape, side)
    fine = draw_mask(shape, SIZES["huge"] * 8)
    centers = ((np.arange(side) + 0.5) / side * len(fine)).astype(int)
    return fine[np.ix_(centers, centers)]


@cache
def _templates(
    side: int,
) -> tuple[tuple[str, ...], Float32[ndarray, "pixel shape"], Float32[ndarray, "shape"]]:
    """Return the shapes that occur at a side, their pixels, and the minimum visible area of each."""
    shapes = ("ring",) if side in _SIDES["huge"] else SHAPES
    pixels = np.stack([_shape_template(shape, side).ravel() for shape in shapes], axis=1).astype(np.float32)
    return shapes, pixels, _MIN_VISIBLE * pixels.sum(axis=0)


def fit_shape(
    seen: Bool[ndarray, "64 64"], care: Bool[ndarray, "64 64"], *, hidden: bool = False
) -> ShapeFit | None:
    """Return the shape that best overlaps the visible pixels where `care` holds, or None if no size fits.

    `hidden` allows part of the thing to lie where `care` does not hold, so that it may be larger than its
    visible part.
    """
    visible = seen & care
    rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    if len(rows) == 0:
        return None
    extent = max(int(rows[-1] - rows[0]), int(columns[-1] - columns[0])) + 1
    most = _SIDES["large"].stop - 1 if hidden else extent + _SIDE_SLACK
    sides = [s for sizes in _SIDES.values() for s in sizes if extent - _SIDE_SLACK <= s <= most]
    total = float(visible.sum())
    padded = np.pad(visible, _PLACE_SLACK).astype(np.float32), np.pad(care, _PLACE_SLACK).astype(np.float32)
    best: dict[str, tuple[float, float, int, int, int]] = {}
    for side in sides:
        shapes, shape_pixels, least = _templates(side)
        tops, lefts = _places(rows, side), _places(columns, side)
        if not tops or not lefts:
            continue
        window = (slice(tops.start, tops.stop), slice(lefts.start, lefts.stop))
        views = [
            sliding_window_view(plane, (side, side))[window].reshape(-1, side * side) for plane in padded
        ]
        shared, in_view = views[0] @ shape_pixels, views[1] @ shape_pixels
        overlap = shared / (total + in_view - shared)
        overlap[in_view < least] = 0
        prior = _SIDE_PRIOR * min(abs(side - nominal) for nominal in SIZES.values())
        for i, place in enumerate(overlap.argmax(axis=0)):
            found = float(overlap[place, i])
            if found - prior > best.get(shapes[i], (-1.0,))[0]:
                top, left = tops[int(place) // len(lefts)], lefts[int(place) % len(lefts)]
                best[shapes[i]] = found - prior, found, side, left - _PLACE_SLACK, top - _PLACE_SLACK
    if not best:
        return None
    (shape, (score, overlap_best, side, left, top)), *others = sorted(best.items(), key=lambda it: -it[1][0])
    lead = score - max((other[1][0] for other in others), default=0.0)
    return ShapeFit(shape=shape, side=side, left=left, top=top, overlap=overlap_best, lead=lead)


def _places(seen: ndarray, side: int) -> range:
    """Return the padded coordinates at which a box of this side contains all visible pixels, within the
    slack."""
    first = max(0, int(seen[-1]) + 1 - side)
    last = min(CANVAS + 2 * _PLACE_SLACK - side, int(seen[0]) + 2 * _PLACE_SLACK)
    return range(first, last + 1)


@cache
def _patterns(
    side: int,
) -> tuple[tuple[str, ...], Float32[ndarray, "pattern"], Float32[ndarray, "pattern pixel"]]:
    """Return every texture at every shift: its name, the cost of the shift, and where it is white."""
    cell = side / (3 if side in _SIDES["small"] else 4)
    period = round(2 * cell)
    names, costs, tones = [], [], []
    position = np.arange(side) + 0.5
    for down in range(-period // 2, period // 2):
        rows = np.floor((position - down) / cell)[:, None]
        for across in range(-period // 2, period // 2):
            if across == 0:
                names.append(_STRIPED)
                costs.append(_PHASE_COST * (abs(down) > _PHASE_SLACK))
                tones.append(np.broadcast_to(rows % 2 == 1, (side, side)).ravel())
            columns = np.floor((position - across) / cell)[None]
            names.append(_CHECKERED)
            costs.append(_PHASE_COST * (max(abs(down), abs(across)) > _PHASE_SLACK))
            tones.append(((rows + columns) % 2 == 1).ravel())
    return tuple(names), np.array(costs, dtype=np.float32), np.stack(tones).astype(np.float32)


def fit_texture(
    white: Bool[ndarray, "64 64"], colored: Bool[ndarray, "64 64"], fit: ShapeFit
) -> tuple[str, float] | None:
    """Return the texture whose white pattern agrees best inside the fitted shape, with the fraction that
    agrees.

    Returns None if no texture agrees well enough.
    """
    region = fit.region()
    top, left = max(fit.top, 0), max(fit.left, 0)
    pixels = np.zeros((2, fit.side, fit.side), dtype=np.float32)
    box = (slice(top, min(fit.top + fit.side, CANVAS)), slice(left, min(fit.left + fit.side, CANVAS)))
    inside = (slice(top - fit.top, box[0].stop - fit.top), slice(left - fit.left, box[1].stop - fit.left))
    pixels[0][inside] = (white & region)[box]
    pixels[1][inside] = ((white | colored) & region)[box]
    is_white, valid = pixels.reshape(2, -1)
    count = float(valid.sum())
    if count == 0:
        return None
    names, costs, tones = _patterns(fit.side)
    agreement = (count - is_white.sum() - tones @ valid + 2 * (tones @ is_white)) / count
    best = int(np.argmax(agreement - costs))
    solid = 1 - float(is_white.sum()) / count
    name, share = (
        (_SOLID, solid) if solid >= agreement[best] - costs[best] else (names[best], float(agreement[best]))
    )
    return (name, share) if share >= _MIN_AGREEMENT[name] else None
