"""Draws a scene: smooth-edged shapes in flat colours on a grey ground.

Each shape is defined once, as a region of the unit square, and used twice: antialiased with 4 x 4 samples per
pixel to draw, and as a hard mask at pixel centres to check. A texture is a pattern of square cells, anchored
to the thing's bounding box, with white as its second tone.
"""

from functools import cache

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from lavibridge.world.scene import CANVAS, COLORS, GROUND, SIZES, WHITE, Scene, Thing

_SAMPLES = 4


@cache
def _coverage(shape: str, side: int) -> Float[ndarray, "side side"]:
    """Return the fraction of each pixel of a side x side box that the shape covers, in [0, 1]."""
    fine = _region(shape, side * _SAMPLES).astype(np.float64)
    return fine.reshape(side, _SAMPLES, side, _SAMPLES).mean(axis=(1, 3))


@cache
def draw_mask(shape: str, side: int) -> Bool[ndarray, "side side"]:
    """Return the pixels of a side x side box that the shape covers by at least half."""
    return np.asarray(_coverage(shape, side) >= 0.5)


@cache
def _second_tone(texture: str, side: int) -> Bool[ndarray, "side side"]:
    """Return the pixels of the box that a texture paints white, in cells of 6 or 7 pixels."""
    cell = side // (3 if side < 20 else 4)
    rows, columns = np.mgrid[0:side, 0:side] // cell
    pattern = {"solid": np.zeros_like(rows), "striped": rows, "checkered": rows + columns}[texture]
    return np.asarray(pattern % 2 == 1)


def draw_scene(scene: Scene) -> UInt8[ndarray, "64 64 3"]:
    """Draw the scene as an RGB picture with values in 0..255."""
    canvas = np.empty((CANVAS, CANVAS, 3))
    canvas[:] = GROUND
    for thing in scene.things:
        side = thing.side
        box = canvas[thing.top : thing.top + side, thing.left : thing.left + side]
        paint = np.where(_second_tone(thing.texture, side)[..., None], WHITE, COLORS[thing.color])
        alpha = _coverage(thing.shape, side)[..., None]
        box[:] = alpha * paint + (1 - alpha) * box
    return np.rint(canvas).astype(np.uint8)


def draw_placed_mask(thing: Thing) -> Bool[ndarray, "64 64"]:
    """Return the thing's hard mask on the canvas, ignoring occlusion."""
    canvas = np.zeros((CANVAS, CANVAS), dtype=bool)
    canvas[thing.top : thing.top + thing.side, thing.left : thing.left + thing.side] = draw_mask(
        thing.shape, thing.side
    )
    return canvas


def _region(shape: str, resolution: int) -> Bool[ndarray, "resolution resolution"]:
    """Return the shape as a region of [-1, 1] x [-1, 1], y downwards, sampled at cell centres."""
    axis = (np.arange(resolution) + 0.5) / resolution * 2 - 1
    y, x = np.meshgrid(axis, axis, indexing="ij")
    if shape == "circle":
        return x**2 + y**2 <= 1
    if shape == "square":
        return np.ones_like(x, dtype=bool)
    if shape == "triangle":
        return np.abs(x) <= (y + 1) / 2
    if shape == "cross":
        return (np.abs(x) <= 0.36) | (np.abs(y) <= 0.36)
    if shape == "ring":
        hole = (
            0.76 if resolution >= SIZES["huge"] * _SAMPLES else 0.5
        )  # a huge ring has room for a thing inside
        return (x**2 + y**2 <= 1) & (x**2 + y**2 >= hole**2)
    return _star(x, y)


def _star(x: Float[ndarray, "h w"], y: Float[ndarray, "h w"]) -> Bool[ndarray, "h w"]:
    """Return a five-pointed star that fills its box, with straight edges between its ten corners."""
    y = (y * 0.905) + 0.095  # the points of a star span -1 .. 0.81 vertically and +-0.951 horizontally
    x = x * 0.951
    angle = np.arctan2(x, -y)  # 0 = up
    wedge = 2 * np.pi / 5
    folded = np.abs((angle + wedge / 2) % wedge - wedge / 2)
    radius = np.hypot(x, y)
    inner = 0.5
    # The edge between the tip (1, angle 0) and the notch (inner, angle wedge / 2), as a line in the fold.
    px, py = radius * np.cos(folded), radius * np.sin(folded)
    nx, ny = inner * np.cos(wedge / 2), inner * np.sin(wedge / 2)
    return (px - 1) * ny - py * (nx - 1) <= 0
