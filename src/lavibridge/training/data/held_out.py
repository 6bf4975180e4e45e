"""Holds out a share of the data, chosen by name, which training never uses.

    hash(name) < share  ->  held out          otherwise  ->  trained on

A name is on the same side in every run, independent of the seed, the order and the other images. So a data
set may grow, and no held-out image becomes a training image.
"""

import hashlib
from typing import final

import numpy as np
from jaxtyping import Int

from lavibridge.core.errors import DataError
from lavibridge.data.base import Dataset, DatasetPart, PicturePixels, Sample
from lavibridge.recipes.training_section import ValidationSection


@final
class HeldOutSubset(Dataset):
    """Some samples of a dataset."""

    def __init__(self, whole: Dataset, indices: Int[np.ndarray, " picture"], selection: str) -> None:
        super().__init__(whole.config, whole.rejected)
        self.whole = whole
        self.has_pictures = whole.has_pictures
        self.indices = indices
        self.selection = selection

    def __len__(self) -> int:
        return len(self.indices)

    def sample(self, index: int) -> Sample:
        return self.whole.sample(int(self.indices[index]))

    def visit_caption(self, index: int, caption: str, seed: int) -> str:
        return self.whole.visit_caption(int(self.indices[index]), caption, seed)

    def picture(self, index: int, size: tuple[int, int]) -> PicturePixels:
        return self.whole.picture(int(self.indices[index]), size)

    def sizes(self) -> Int[np.ndarray, "picture 2"]:
        return self.whole.sizes()[self.indices]

    def content(self, index: int) -> bytes:
        return self.whole.content(int(self.indices[index]))

    def parts(self) -> tuple[DatasetPart, ...]:
        """The parts of the whole dataset that have samples here; needs ascending indices."""
        parts = self.whole.parts()
        ends = np.cumsum([part.count for part in parts])
        counts = np.diff(np.searchsorted(self.indices, ends), prepend=0).tolist()
        return tuple(
            DatasetPart(count=count, weight=part.weight)
            for count, part in zip(counts, parts, strict=True)
            if count
        )

    def fingerprint(self) -> str:
        """The fingerprint of the whole dataset, and the selection."""
        return f"{self.whole.fingerprint()}, {self.selection}"


def hold_out(dataset: Dataset, settings: ValidationSection | None) -> tuple[Dataset, Dataset | None]:
    """Return the training set, and the held-out set, lowest hash first.

    Raises DataError if one of them is empty.
    """
    if settings is None:
        return dataset, None
    share = settings.share
    places = np.array([held_out_position(name) for name in dataset.names()])
    held, kept = np.flatnonzero(places < share), np.flatnonzero(places >= share)
    for found, what in ((held, "held out"), (kept, "trained on")):
        if not len(found):
            raise DataError(
                f"with training.validation.share={share:g}, none of {len(dataset):,} pictures would be "
                f"{what}: {'raise' if what == 'held out' else 'lower'} it, or leave training.validation out"
            )
    return (
        HeldOutSubset(dataset, kept, f"but {share:g} held out"),
        HeldOutSubset(dataset, held[np.argsort(places[held])], f"{share:g} held out"),
    )


def held_out_position(name: str) -> float:
    """Hash a name to a number in [0, 1)."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest(), "big") / 2**56
