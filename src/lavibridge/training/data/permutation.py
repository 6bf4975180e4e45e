"""Computes a shuffle element by element, without a table.

    0 <= i < count,  i = left * width + right,  left < height,  right < width,  height * width >= count
    each round:  left  += f(round, right)  mod height        then        right += f(round, left)  mod width

Each round is invertible for any f, so together they are a permutation of height * width numbers. A result of
`count` or more goes through the rounds again until it is below ("cycle walking"). A table of 10^8 elements
would take 800 MB; this takes a few bytes.

Sources: Black and Rogaway 2002, "Ciphers with arbitrary finite domains" (generalised Feistel networks, cycle
walking); Mitchell et al. 2021, arXiv 2106.06161 (Feistel networks as shuffles); f is the finaliser of
splitmix64 (Steele et al. 2014).
"""

import math
from typing import final

import numpy as np
from jaxtyping import Int64, UInt64

_ROUNDS = 8


@final
class Permutation:
    """A permutation of 0 .. count - 1; each seed (below 2^64) has its own."""

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.height = np.uint64(math.isqrt(count - 1) + 1)
        self.width = np.uint64(-(-count // int(self.height)))
        keys = _scramble(np.array([seed], dtype=np.uint64)) + np.arange(2 * _ROUNDS, dtype=np.uint64)
        self.keys = _scramble(keys)

    def at(self, places: Int64[np.ndarray, " place"]) -> Int64[np.ndarray, " place"]:
        """The elements at these places."""
        walked = self._shuffle(places.astype(np.uint64))
        while (beyond := walked >= np.uint64(self.count)).any():
            walked[beyond] = self._shuffle(walked[beyond])
        return walked.astype(np.int64)

    def _shuffle(self, numbers: UInt64[np.ndarray, " place"]) -> UInt64[np.ndarray, " place"]:
        left, right = np.divmod(numbers, self.width)
        for turn in range(_ROUNDS):
            left = np.mod(left + self._rest(right, 2 * turn, self.height), self.height)
            right = np.mod(right + self._rest(left, 2 * turn + 1, self.width), self.width)
        return np.asarray(left * self.width + right)

    def _rest(
        self, half: UInt64[np.ndarray, " place"], key: int, size: np.uint64
    ) -> UInt64[np.ndarray, " place"]:
        """The round's function: a number below `size`."""
        return np.asarray(np.mod(_scramble(half ^ self.keys[key]), size))


def _scramble(numbers: UInt64[np.ndarray, " place"]) -> UInt64[np.ndarray, " place"]:
    """Map 64 bits one to one to 64 bits that look unrelated. Sums and products wrap around on purpose."""
    mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
