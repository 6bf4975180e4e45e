"""Labels each pixel with its nearest colour and finds the connected components of a mask, in plain NumPy."""

import numpy as np
from jaxtyping import Bool, Float32, Int
from numpy import ndarray

_GROUND_BIAS = 1.5
"""Factor on squared distances to the ground, so that thin tips, which JPEG fades, stay with their things."""
_MIN_ALIKE = 3
"""A pixel with fewer neighbours of its own colour takes the colour of most of its neighbours."""


def name_pixel_colors(
    pixels: Float32[ndarray, "h w 3"], palette: Float32[ndarray, "color 3"], ground: int
) -> Int[ndarray, "h w"]:
    """Return the nearest palette entry of each pixel; lone pixels and lines one pixel wide follow their
    neighbours.

    `ground` is the index of the ground. The blend of two colours along an edge may be nearest to a third (red
    and blue make purple): such lines are one pixel wide and vanish here.
    """
    flat = pixels.reshape(-1, 3)
    distance = ((flat[:, None] - palette) ** 2).sum(axis=-1)
    distance[:, ground] *= _GROUND_BIAS
    labels = distance.argmin(axis=-1).reshape(pixels.shape[:2])
    one_hot = np.eye(len(palette), dtype=np.int8).T[:, labels]
    padded = np.pad(one_hot, ((0, 0), (1, 1), (1, 1)))
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    counts = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    alike = np.take_along_axis(counts, labels[None], axis=0)[0] - 1
    most = counts.argmax(axis=0)
    # The tips of a star are thin too: a pixel against the ground alone stays if any neighbour is alike.
    return np.where((alike < _MIN_ALIKE) & ((most != ground) | (alike < 1)), most, labels)


def connected_regions(mask: Bool[ndarray, "h w"]) -> tuple[Int[ndarray, "h w"], int]:
    """Number the 8-connected components of a mask from 1 (0 = outside) and return how many there are.

    Every pixel starts with its own number and takes the minimum over its neighbours; following each number to
    that pixel's number makes this converge in a few rounds.
    """
    height, width = mask.shape
    nothing = height * width
    numbers = np.where(mask, np.arange(nothing).reshape(height, width), nothing)
    padded = np.full((height + 2, width + 2), nothing)
    while True:
        padded[1:-1, 1:-1] = numbers
        rows = np.minimum(np.minimum(padded[:-2], padded[1:-1]), padded[2:])
        least = np.minimum(np.minimum(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])
        least = np.where(mask, least, nothing)
        flat = np.append(least.ravel(), nothing)
        least = flat[flat[least]]
        if np.array_equal(least, numbers):
            break
        numbers = least
    roots, patches = np.unique(numbers, return_inverse=True)
    shift = 0 if mask.all() else 1
    result = patches.reshape(height, width)
    if shift:
        result = (result + 1) % len(roots)  # the outside sorts last
    else:
        result = result + 1
    return result, len(roots) - shift


def region_core(mask: Bool[ndarray, "h w"]) -> Bool[ndarray, "h w"]:
    """Return the pixels of a mask whose eight neighbours all belong to it."""
    return ~grow_region(~mask)


def grow_region(mask: Bool[ndarray, "h w"]) -> Bool[ndarray, "h w"]:
    """Return a mask together with every adjacent pixel, diagonals included."""
    rows = mask.copy()
    rows[1:] |= mask[:-1]
    rows[:-1] |= mask[1:]
    grown = rows.copy()
    grown[:, 1:] |= rows[:, :-1]
    grown[:, :-1] |= rows[:, 1:]
    return grown
