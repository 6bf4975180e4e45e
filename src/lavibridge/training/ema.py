"""An exponential moving average of the trained weights, which generation uses.

    average <- d * average + (1 - d) * weight        d = min(decay, (1 + step) / (10 + step))

The decay rises at the start, so that the average soon forgets the untrained weights.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


class Ema:
    """The average of some weights, in the same order."""

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self.parameters = list(parameters)
        self.decay = decay
        self.average = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average with the weights after step number `step`, counted from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)

    def take_over(self) -> None:
        """Set the average to the current weights."""
        self.average = [parameter.detach().clone() for parameter in self.parameters]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Use the averaged weights in the block; restore the trained ones afterwards."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def swap(self) -> None:
        """Exchange weights and average."""
        for place, parameter in enumerate(self.parameters):
            kept = parameter.data
            parameter.data = self.average[place]
            self.average[place] = kept
