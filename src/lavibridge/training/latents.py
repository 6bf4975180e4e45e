"""Encoded pictures, each encoded once where memory allows, when it is first met.

    picture --autoencoder--> mean, std     kept     x0 = mean + std * normal        drawn anew at each visit

Pictures are encoded in groups: those that the first epoch meets together. A group is the same whenever it is
encoded, so a run that is taken up later sees bit for bit what an uninterrupted one sees, and in the first
epoch no picture is encoded before it is needed.
"""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lavibridge.data.base import Dataset
from lavibridge.data.pictures.read import to_unit
from lavibridge.training.order import Order
from lavibridge.vision.base import VisionModel

Moments = tuple[Float[Tensor, "batch channel h w"], Float[Tensor, "batch channel h w"]]


class Latents:
    """Mean and standard deviation of the latents of a dataset's pictures."""

    def __init__(
        self,
        dataset: Dataset,
        vision: VisionModel,
        order: Order,
        size: tuple[int, int],
        group: int,
        memory_gb: float,
    ) -> None:
        self.dataset = dataset
        self.vision = vision
        self.order = order
        self.size = size
        self.group = group
        self.readers = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
        self.shape = vision.latent_shape(*size)
        count = len(dataset)
        self.is_cached = 2 * 4 * count * math.prod(self.shape) <= memory_gb * 1e9
        kept = count if self.is_cached else 0
        self.mean = torch.empty(kept, *self.shape)
        self.std = torch.empty(kept, *self.shape)
        self.known = np.zeros(kept, dtype=bool)
        self.place = np.argsort(order.epoch(0)) if self.is_cached else np.empty(0, dtype=np.int64)

    def moments(self, indices: Sequence[int]) -> Moments:
        """Mean and standard deviation of some pictures, on the CPU when cached."""
        if not self.is_cached:
            return self.encode(indices)
        for index in indices:
            if not self.known[index]:
                start = int(self.place[index]) // self.group * self.group
                members = self.order.epoch(0)[start : start + self.group]
                mean, std = self.encode(members.tolist())
                self.mean[members] = mean.cpu()
                self.std[members] = std.cpu()
                self.known[members] = True
        return self.mean[list(indices)], self.std[list(indices)]

    def read(self, index: int) -> Float[np.ndarray, "3 height width"]:
        """One picture in [-1, 1]."""
        return to_unit(self.dataset.picture(index, self.size))

    def encode(self, indices: Sequence[int]) -> Moments:
        """Read and encode pictures together."""
        images = np.stack(list(self.readers.map(self.read, indices)))
        return self.vision.encode_moments(torch.from_numpy(images).to(self.vision.alphas.device))
