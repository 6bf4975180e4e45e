"""Which sample is met when, and everything random about it, from (seed, position) alone.

    position p = 0, 1, 2, ...     epoch = p // n     index = permutation(seed, epoch)[p % n]

No state is kept, so a run can begin at any position: k steps, a break, and the rest give the same samples
with the same noise as all steps at once, and two half batches meet what the whole batch would have met.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def mix(*numbers: int) -> int:
    """One seed from several numbers, well spread: neighbours share nothing."""
    text = ",".join(str(number) for number in numbers)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


class Order:
    """The order of visits to `count` samples."""

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.seed = seed
        # The two epochs that a batch can touch, and the first, by which latents are grouped.
        self.epoch = lru_cache(maxsize=4)(self._epoch)

    def _epoch(self, number: int) -> np.ndarray:
        return np.random.default_rng([self.seed, number]).permutation(self.count)

    def index(self, position: int) -> int:
        """The sample at a position."""
        number, place = divmod(position, self.count)
        return int(self.epoch(number)[place])


@dataclass(frozen=True, kw_only=True)
class Chance:
    """Everything random about one visit."""

    caption: float
    """In [0, 1): which of the sample's captions."""
    drop: float
    """In [0, 1): below the caption dropout, the empty prompt takes the caption's place."""
    time: float
    """In [0, 1): the share of all timesteps."""
    latent: Float[Tensor, "channel h w"]
    """Standard normal: where in the autoencoder's distribution."""
    noise: Float[Tensor, "channel h w"]
    """Standard normal: what is added."""


def chance(seed: int, position: int, shape: tuple[int, int, int]) -> Chance:
    """The random numbers of one visit, made on the CPU so that they are the same on every device."""
    generator = torch.Generator().manual_seed(mix(seed, position))
    caption, drop, time = torch.rand(3, generator=generator).tolist()
    latent, noise = torch.randn(2, *shape, generator=generator)
    return Chance(caption=caption, drop=drop, time=time, latent=latent, noise=noise)
