"""Caches encoded images; each is encoded at its first visit, and cached as long as there is space.

    image --autoencoder--> mean, std --> cache        each visit draws x0 = mean + std * normal

Images are encoded one by one, so that latents depend on their image alone: the number of images encoded
together changes the last bits (by 3e-6 in a miniature). Runs with and without a cache, uninterrupted and
resumed, with one process and with many get the same latents bit for bit, and processes can fill one cache
together. The cost is small, because one image keeps a machine busy: 3 % of the encoding with mini-sd's
autoencoder on a CPU.
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
from lavibridge.training.cache.keys import key_digest, picture_key
from lavibridge.training.cache.shard import KEY_BYTES, Entry
from lavibridge.training.data.sampler import Visit
from lavibridge.training.reporting.timing import ENCODING, READING, Timing
from lavibridge.vision.base import VisionModel

Moments = tuple[Float[Tensor, "batch channel h w"], Float[Tensor, "batch channel h w"]]
Image = Float[np.ndarray, "3 height width"]
Result = TypeVar("Result")


class LatentNames:
    """Keys for a cache in memory, which lasts as long as the run."""

    def __call__(self, visit: Visit) -> bytes:
        """The key of a visit."""
        return repr(visit).encode()

    def check(self, visit: Visit) -> None:
        """Do nothing: no entry outlives the run, so none can be out of date."""


class LatentContents:
    """Keys from the content of the images; each image is read once for its hash."""

    def __init__(self, dataset: Dataset, maker: bytes) -> None:
        self.dataset = dataset
        self.maker = maker
        # 17 bytes an image; the system allocates only the pages of visited images.
        self.hashes = np.zeros((len(dataset), KEY_BYTES), dtype=np.uint8)
        self.known = np.zeros(len(dataset), dtype=bool)

    def __call__(self, visit: Visit) -> bytes:
        """The key of a visit."""
        if not self.known[visit.index]:
            self.hashes[visit.index] = np.frombuffer(self.content(visit.index), dtype=np.uint8)
            self.known[visit.index] = True
        return picture_key(self.maker, self.hashes[visit.index].tobytes(), visit)

    def content(self, index: int) -> bytes:
        """Hash an image's file or scene, as it is now."""
        return key_digest(self.dataset.content(index))

    def check(self, visit: Visit) -> None:
        """Raise DataError if an image has changed since its key was computed."""
        if self.content(visit.index) != self.hashes[visit.index].tobytes():
            raise DataError(
                f"{self.dataset.sample(visit.index).name} has changed during training: start again, and do "
                "not change images while a run uses them"
            )


class Latents:
    """Mean and standard deviation of the latents of a dataset's images."""

    def __init__(
        self,
        dataset: Dataset,
        vision: VisionModel,
        backend: Backend,
        names: LatentNames | LatentContents,
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
        """Return mean and standard deviation for visits of one size, on the CPU."""
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
        """Encode images and yield their keys and entries; threads read the next images meanwhile."""
        images = self._read_ahead(self.read, visits.values())
        for key in visits:
            with self.timing.on(READING):
                image = next(images)
            with self.timing.on(ENCODING):
                entry = self.encode(image)
            yield key, entry

    def read(self, visit: Visit) -> Image:
        """Read one image, with values in [-1, 1]."""
        pixels = self.dataset.picture(visit.index, visit.size)
        self.names.check(visit)
        return normalize_pixels(pixels[:, ::-1] if visit.flipped else pixels)

    def encode(self, image: Image) -> Entry:
        """Encode one image as an entry: mean and standard deviation."""
        device = self.vision.alphas.device
        mean, std = self.vision.encode_moments(torch.from_numpy(image)[None].to(device))
        return {"moments": torch.stack([mean[0], std[0]])}

    def close(self) -> None:
        """Write pending entries, and stop the reading threads."""
        if self.readers is not None:
            self.readers.shutdown(cancel_futures=True)
        self.backend.close()

    def _read_ahead(self, function: Callable[[Visit], Result], visits: Iterable[Visit]) -> Iterator[Result]:
        """Apply a function to each visit and yield the results in order."""
        return map(function, visits) if self.readers is None else self.readers.map(function, visits)
