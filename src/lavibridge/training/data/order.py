"""The order of samples, and everything random about a visit, as functions of (seed, position) alone.

    position p = 0, 1, 2, ...     epoch = p // n     index = permutation(seed, epoch)[p % n]

There is no state, so a run can start at any position: interrupted or not, it has the same samples with the
same noise, and two half batches have the samples of one whole batch. If parts of the data have weights, each
10,000 visits have round(10,000 * share) of every part; `bucketed.py` groups images by shape.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lavibridge.core.seeds import mix_seeds
from lavibridge.training.data.permutation import Permutation

LARGEST_ORDER_TABLE = 2**20
"""Largest number of samples whose permutation is a table, of 8 bytes each; larger ones are computed."""
ORDER_BLOCK = 10_000
"""Number of visits within which each part of a dataset has its exact share."""


class SampleOrder(ABC):
    """An order of `count` samples: one sample for each position."""

    count: int

    @abstractmethod
    def indices(self, positions: Int64[np.ndarray, " position"]) -> Int64[np.ndarray, " position"]:
        """The samples at some positions."""

    def index(self, position: int) -> int:
        """The sample at one position."""
        return int(self.indices(np.array([position]))[0])


@final
class ShuffledOrder(SampleOrder):
    """Every sample once in each epoch, each epoch in another order."""

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.seed = seed
        # A batch can contain samples of two epochs.
        self.epoch = lru_cache(maxsize=2)(self._epoch)

    def _epoch(self, number: int) -> "Callable[[Int64[np.ndarray, ' place']], Int64[np.ndarray, ' place']]":
        """The permutation of an epoch, as a function."""
        if self.count > LARGEST_ORDER_TABLE:
            return Permutation(self.count, mix_seeds(self.seed, number)).at
        return np.random.default_rng([self.seed, number]).permutation(self.count).__getitem__

    def indices(self, positions: Int64[np.ndarray, " position"]) -> Int64[np.ndarray, " position"]:
        epochs, places = np.divmod(positions, self.count)
        found = np.empty_like(places)
        for number in np.unique(epochs).tolist():
            here = epochs == number
            found[here] = self.epoch(number)(places[here])
        return found


def apportion_places(weights: Sequence[float]) -> list[int]:
    """The number of each part's visits in a block: nearest to its share, at least 1, ORDER_BLOCK in total."""
    shares = np.array(weights, dtype=np.float64) / sum(weights) * ORDER_BLOCK
    places = np.maximum(np.floor(shares), 1).astype(np.int64)
    while (missing := ORDER_BLOCK - int(places.sum())) > 0:  # by the largest remainders
        places[np.argmax(shares - places)] += 1
    places[np.argmax(places)] += missing  # negative if tiny parts got their minimum of 1
    return [int(place) for place in places]


@final
class WeightedOrder(SampleOrder):
    """Mixes parts of a dataset in fixed shares, each in its own order; their samples are numbered in turn."""

    def __init__(self, parts: Sequence[SampleOrder], weights: Sequence[float], unit: int, seed: int) -> None:
        self.parts = parts
        self.unit = unit
        self.count = sum(part.count for part in parts)
        self.starts = np.cumsum([0, *(part.count for part in parts)])[:-1]
        self.places = apportion_places(weights)
        self.ends = np.cumsum(self.places)
        self.turns = ShuffledOrder(ORDER_BLOCK, mix_seeds(seed, 2))

    def indices(self, positions: Int64[np.ndarray, " position"]) -> Int64[np.ndarray, " position"]:
        turns, inside = np.divmod(positions, self.unit)
        shuffled = self.turns.indices(turns)
        part = np.searchsorted(self.ends, shuffled, side="right")
        places, ends = np.array(self.places)[part], self.ends[part]
        own = (turns // ORDER_BLOCK * places + shuffled - (ends - places)) * self.unit + inside
        found = np.empty_like(positions)
        for number in np.unique(part).tolist():
            here = part == number
            found[here] = self.starts[number] + self.parts[number].indices(own[here])
        return found


@dataclass(frozen=True, kw_only=True)
class VisitRandomness:
    """The random numbers of one visit of a sample."""

    caption: float
    """In [0, 1): selects one of the sample's captions."""
    drop: float
    """In [0, 1): below the caption dropout, the empty prompt replaces the caption."""
    time: float
    """In [0, 1): selects the timestep."""
    latent: Float[Tensor, "channel h w"]
    """Standard normal: the sample of the autoencoder's distribution."""
    noise: Float[Tensor, "channel h w"]
    """Standard normal: the noise that corrupts the latents."""


def rng_for_visit(seed: int, position: int, shape: tuple[int, int, int]) -> VisitRandomness:
    """Draw the random numbers of one visit, on the CPU so that they are the same on every device."""
    generator = torch.Generator().manual_seed(mix_seeds(seed, position))
    caption, drop, time = torch.rand(3, generator=generator).tolist()
    latent, noise = torch.randn(2, *shape, generator=generator)
    return VisitRandomness(caption=caption, drop=drop, time=time, latent=latent, noise=noise)
