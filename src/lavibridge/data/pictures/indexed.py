"""The shared base of kinds with stored pictures: a subclass lists them, and this class does the rest.

    fresh index?  yes: map it into memory, which takes no time     no: check every picture
    a visit       row -> bytes -> same hash as at the check? -> picture

The check decodes every picture before training begins. It finds a truncated download in the first minutes
instead of after a night, and it determines the set of samples, and with it the whole order of training. An
index is fresh while lists have the same bytes, and folders or archives the same sizes and modification times;
for up to `_COMPARED` pictures, each file is compared too. Every read compares a picture's hash with the
check: training never uses an unchecked picture.
"""

import hashlib
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from pydantic import Field

from lavibridge.core.config import Changeable
from lavibridge.core.errors import DataError
from lavibridge.core.lock import hold_lock
from lavibridge.data.base import Dataset, Sample
from lavibridge.data.pictures.check import build_index
from lavibridge.data.pictures.decoding import decode_picture, forbid_decompression_bombs, scale_and_crop
from lavibridge.data.pictures.image_table import ImageTable, ImageTableEntry
from lavibridge.data.pictures.index import ImageIndex
from lavibridge.data.pictures.paths import AbsolutePath
from lavibridge.data.pictures.rejected import RejectedPictures

_COMPARED = 100_000
"""Up to this many pictures, every start compares each one's file with the index."""
_NOT_OF_INDEX = frozenset(
    {"size", "buckets", "flip", "max_rejected", "index"}
    | {"prefix", "trigger", "shuffle_tags", "tag_dropout", "keep_tags"}
)
"""Settings that do not change the set of pictures."""


class IndexedPictures(Dataset):
    """Base of the kinds whose pictures are checked once and then read through the index."""

    class Config(Dataset.Config):
        """Settings of every kind that reads stored pictures."""

        max_rejected: Changeable[float] = Field(default=0.05, ge=0, le=1)
        """Maximum fraction of unusable pictures, in [0, 1], above which training refuses to start."""
        index: Changeable[AbsolutePath | None] = None
        """Folder of the index that `lavi data check` writes, outside the data's folder; by default a folder
        of the user's cache."""

    def __init__(self, config: "IndexedPictures.Config", rejected: RejectedPictures) -> None:
        super().__init__(config, rejected)
        forbid_decompression_bombs()
        self.where = self.describe()
        self.index = index_of(type(self), config)
        manifest, self.table = self._open(rejected)
        self._fingerprint = str(manifest["fingerprint"])
        rejected.take(self.index.rejections())
        rejected.index_list = self.index.rejected
        rejected.close(len(self.table) + len(rejected.entries), config.max_rejected, self.where)

    @abstractmethod
    def describe(self) -> str:
        """Return a description of the data for messages."""

    @abstractmethod
    def stamps(self) -> dict[str, Any]:
        """Return JSON values that change when the listing changes, without listing the pictures."""

    @abstractmethod
    def listing(self, rejected: RejectedPictures) -> list[ImageTableEntry]:
        """List every picture without reading it; anything that is not a picture goes to `rejected`."""

    @abstractmethod
    def stamp(self, entry: ImageTableEntry) -> tuple[int, int]:
        """Return size and modification time of a picture's file. Raises DataError if it is missing."""

    @abstractmethod
    def read(self, entry: ImageTableEntry) -> bytes:
        """Return the bytes of a picture. Raises DataError with the reason if that fails."""

    def changed(self, table: ImageTable) -> bool:
        """Whether files that `stamps` does not cover differ from the table; needs one stat call per file."""
        return False

    def _open(self, rejected: RejectedPictures) -> tuple[dict[str, Any], ImageTable]:
        """Open the index, and build it first if it is not fresh."""
        fresh = self._fresh()
        if fresh is not None:
            return fresh
        self.stamps()  # fails before anything is written if there is no data
        with self._exclusive():
            fresh = self._fresh()  # another process may have built it while this one waited
            if fresh is not None:
                return fresh
            stamps = self.stamps()
            entries = self.listing(rejected)
            if not entries and not rejected.entries:
                raise DataError(f"{self.where} holds no pictures")
            try:
                build_index(self.index, entries, stamps, self.stamp, self.read, rejected)
            except OSError as error:
                raise self._unwritable(error) from error
        manifest = self.index.manifest()
        if manifest is None:
            raise DataError(f"{self.index.folder} changed while it was written; check the data again")
        return manifest, self.index.table(manifest)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the exclusive right to write the index; wait for it if necessary."""
        with ExitStack() as stack:
            try:
                waits = f"another process is checking {self.where}"
                stack.enter_context(hold_lock(self.index.folder, waits=waits))
            except OSError as error:
                raise self._unwritable(error) from error
            yield

    def _unwritable(self, error: OSError) -> DataError:
        return DataError(
            f"the index of {self.where} cannot be written to {self.index.folder}: {error.strerror or error}; "
            "set data.index to another folder, or set LAVIBRIDGE_CACHE"
        )

    def _fresh(self) -> tuple[dict[str, Any], ImageTable] | None:
        """Return the index if it describes exactly these files."""
        manifest = self.index.manifest()
        if manifest is None or manifest["stamps"] != self.stamps():
            return None
        try:
            table = self.index.table(manifest)
        except (OSError, ValueError):  # damaged: the check rebuilds it
            return None
        if len(table) <= _COMPARED and self.changed(table):
            return None
        return manifest, table

    def __len__(self) -> int:
        return len(self.table)

    def sample(self, index: int) -> Sample:
        return self.table.sample(index)

    def names(self) -> Iterator[str]:
        return self.table.names()

    def sizes(self) -> Int[np.ndarray, "picture 2"]:
        return self._sizes

    @cached_property
    def _sizes(self) -> Int[np.ndarray, "picture 2"]:
        return self.table.sizes()

    def content(self, index: int) -> bytes:
        entry = self.table.entry(index)
        try:
            data = self.read(entry)
        except DataError as error:
            raise DataError(
                f"{entry.name} was readable when it was checked and no longer is: {error}"
            ) from error
        if hashlib.sha256(data).digest() != self.table.image_check(index).digest:
            raise DataError(
                f"{entry.name} has changed since it was checked: run `lavi data check`, then start a new "
                f"training; if its size and time are unchanged, first delete {self.index.folder}"
            )
        return data

    def picture(self, index: int, size: tuple[int, int]) -> UInt8[np.ndarray, "height width 3"]:
        return scale_and_crop(decode_picture(self.content(index)), size)

    def fingerprint(self) -> str:
        """Return the number of pictures and a hash of their names, captions and bytes in order."""
        return self._fingerprint


def index_of(kind: type[IndexedPictures], config: IndexedPictures.Config) -> ImageIndex:
    """Return the index that belongs to a kind's settings."""
    settings = {
        name: value
        for name, value in config.model_dump(mode="json").items()
        if name not in _NOT_OF_INDEX and name != "kind"
    }
    # `AbsolutePath` has made every path absolute, so that it means the same from any folder.
    return ImageIndex({"kind": kind.__module__, **settings}, config.index)
