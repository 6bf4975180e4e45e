"""Draws from few options, an order of magnitude faster than NumPy's `choice`."""

from collections.abc import Mapping, Sequence

import numpy as np


def rng_pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    """Return one of the options with equal probability."""
    return options[int(rng.integers(len(options)))]


def rng_pick_weighted(rng: np.random.Generator, shares: Mapping[str, float]) -> str:
    """Return one of the keys with its value as probability; the values sum to one."""
    rest = rng.random()
    for option, share in shares.items():
        rest -= share
        if rest < 0:
            return option
    return option
