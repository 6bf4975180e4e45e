"""Encoded pictures, each encoded once where it can be kept, when it is first met.

    picture --autoencoder--> mean, std     kept     x0 = mean + std * normal        drawn anew at each visit

Pictures are encoded one by one: how many are encoded together changes the last bits (by 3e-6 in a miniature),
and so a latent depends on its picture alone. Runs with and without a cache, straight and resumed, with one
process and with many see the same numbers bit for bit, and processes can fill one cache together. It costs
little, as a picture fills the machine by itself: 3 % of the encoding with the miniature autoencoder on a CPU.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lavibridge.core.errors import DataError
from lavibridge.data.base import Dataset
from lavibridge.data.pictures.decoding import normalize_pixels
from lavibridge.training.cache.backend import Backend
from lavibridge.training.cache.keys import digest, picture_key
from lavibridge.training.cache.shard import KEY_BYTES, Entry
from lavibridge.training.data.sampler import Visit
from lavibridge.training.reporting.timing import ENCODING, READING, Timing
from lavibridge.vision.base import VisionModel

Moments = tuple[Float[Tensor, "batch channel h w"], Float[Tensor, "batch channel h w"]]
Image = Float[np.ndarray, "3 height width"]
Result = TypeVar("Result")


class Names:
    """Keys of visits where pictures stay what they are: in memory, for as long as a run."""

    def __call__(self, visit: Visit) -> bytes:
        """The key of a visit."""
        return repr(visit).encode()

    def check(self, visit: Visit) -> None:
        """Nothing outlives the run, so that nothing can be out of date."""


class Contents:
    """Keys of visits by what the pictures are made from; each is read once for that."""

    def __init__(self, dataset: Dataset, maker: bytes) -> None:
        self.dataset = dataset
        self.maker = maker
        # 17 bytes a picture, of which the system takes up those of pictures that were met.
        self.hashes = np.zeros((len(dataset), KEY_BYTES), dtype=np.uint8)
        self.known = np.zeros(len(dataset), dtype=bool)

    def __call__(self, visit: Visit) -> bytes:
        """The key of a visit."""
        if not self.known[visit.index]:
            self.hashes[visit.index] = np.frombuffer(self.content(visit.index), dtype=np.uint8)
            self.known[visit.index] = True
        return picture_key(self.maker, self.hashes[visit.index].tobytes(), visit)

    def content(self, index: int) -> bytes:
        """The hash of what a picture is made from, at this moment."""
        return digest(self.dataset.content(index))

    def check(self, visit: Visit) -> None:
        """DataError where a picture was replaced after its key was made: the key would be untrue."""
        if self.content(visit.index) != self.hashes[visit.index].tobytes():
            raise DataError(
                f"{self.dataset.sample(visit.index).name} was replaced while it was used: leave the pictures "
                "alone during training, and begin again"
            )


class Latents:
    """Mean and standard deviation of the latents of a dataset's pictures."""

    def __init__(
        self,
        dataset: Dataset,
        vision: VisionModel,
        backend: Backend,
        names: Names | Contents,
        workers: int,
        timing: Timing,
    ) -> None:
        self.dataset = dataset
        self.vision = vision
        self.backend = backend
        self.names = names
        self.timing = timing
        self.readers = ThreadPoolExecutor(max_workers=workers) if workers else None

    def moments(self, visits: Sequence[Visit]) -> Moments:
        """Mean and standard deviation of some visits' pictures, all of one size, on the CPU."""
        keys = self.keys(visits)
        found = {key: self.backend.get(key) for key in keys}
        missing = {key: visit for key, visit in zip(keys, visits, strict=True) if found[key] is None}
        made = {key: self.backend.put(key, entry) for key, entry in self.entries(missing)}
        kept = [made[key] if key in made else found[key] for key in keys]
        mean, std = torch.stack([entry["moments"] for entry in kept if entry is not None]).float().unbind(1)
        return mean, std

    def keys(self, visits: Iterable[Visit]) -> list[bytes]:
        """The keys of visits."""
        with self.timing.on(READING):
            return list(self._read_ahead(self.names, visits))

    def entries(self, visits: Mapping[bytes, Visit]) -> Iterator[tuple[bytes, Entry]]:
        """What is to be kept of some pictures, by their keys; others are read while one is encoded."""
        images = self._read_ahead(self.read, visits.values())
        for key in visits:
            with self.timing.on(READING):
                image = next(images)
            with self.timing.on(ENCODING):
                entry = self.encode(image)
            yield key, entry

    def read(self, visit: Visit) -> Image:
        """One picture in [-1, 1]."""
        pixels = self.dataset.picture(visit.index, visit.size)
        self.names.check(visit)
        return normalize_pixels(pixels[:, ::-1] if visit.flipped else pixels)

    def encode(self, image: Image) -> Entry:
        """What is kept of one picture."""
        device = self.vision.alphas.device
        mean, std = self.vision.encode_moments(torch.from_numpy(image)[None].to(device))
        return {"moments": torch.stack([mean[0], std[0]])}

    def close(self) -> None:
        """Write what is waiting, and end the readers."""
        if self.readers is not None:
            self.readers.shutdown(cancel_futures=True)
        self.backend.close()

    def _read_ahead(self, function: Callable[[Visit], Result], visits: Iterable[Visit]) -> Iterator[Result]:
        """What a function says of each visit, in their order."""
        return map(function, visits) if self.readers is None else self.readers.map(function, visits)
