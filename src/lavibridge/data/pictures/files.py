"""Pictures stored as files of their own below a root: named by a list, or found in a folder."""

import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lavibridge.core.config import Changeable
from lavibridge.core.errors import DataError
from lavibridge.core.identity import cached_file_hash
from lavibridge.data.pictures.check import group_captions
from lavibridge.data.pictures.decoding import read_picture_bytes
from lavibridge.data.pictures.image_table import ImageTable, ImageTableEntry
from lavibridge.data.pictures.indexed import IndexedPictures
from lavibridge.data.pictures.paths import AbsolutePath, check_picture_path, file_stamp, resolve_picture_path
from lavibridge.data.pictures.rejected import RejectedPictures
from lavibridge.data.pictures.walk import refuse_hidden


class PictureFiles(IndexedPictures):
    """Base of the kinds whose pictures are files."""

    class Config(IndexedPictures.Config):
        """Settings of every kind that reads picture files."""

        path: Changeable[AbsolutePath]
        """Path of the data."""

    config: "PictureFiles.Config"

    @property
    def root(self) -> Path:
        """The folder that contains every picture."""
        return self.config.path

    def describe(self) -> str:
        return str(self.config.path)

    def stamp(self, entry: ImageTableEntry) -> tuple[int, int]:
        return file_stamp(resolve_picture_path(self.root, entry.name))

    def read(self, entry: ImageTableEntry) -> bytes:
        return read_picture_bytes(resolve_picture_path(self.root, entry.name))

    def changed(self, table: ImageTable) -> bool:
        """Whether a picture's file has another size or modification time than at its check."""
        try:
            for name, *before in table.stamps():
                found = os.stat(self.root / name)
                if [found.st_size, found.st_mtime_ns] != before:
                    return True
        except OSError:
            return True
        return False


ListedImage = tuple[int, str, Sequence[str]]
"""Line of the list, path of the picture, captions."""


class ListedPictureFiles(PictureFiles):
    """Base of the kinds that read a list; a subclass parses its lines."""

    class Config(PictureFiles.Config):
        """Settings of every kind that reads a list; `path` is the list."""

        root: Changeable[AbsolutePath | None] = None
        """Folder that the paths in the list start from; by default the list's own folder."""

    config: "ListedPictureFiles.Config"

    @property
    def root(self) -> Path:
        return self.config.root or self.config.path.parent

    @abstractmethod
    def pairs(self, path: Path, rejected: RejectedPictures) -> Iterator[ListedImage]:
        """Yield every line that names a picture; the others go to `rejected`."""

    def stamps(self) -> dict[str, Any]:
        path = self.config.path
        if path.is_dir():
            raise DataError(
                f"{path} is a folder; this data.kind reads a list, data.kind: folder reads folders"
            )
        if not path.is_file():
            raise DataError(f"there is no file {path} (data.path)")
        return {"list": cached_file_hash(path)}

    def listing(self, rejected: RejectedPictures) -> list[ImageTableEntry]:
        found = group_captions(self._sound(rejected))
        if not found and not rejected.entries:
            raise DataError(
                f"{self.config.path} holds no pairs; a line names a picture's path and its caption "
                f"(lavi show data.{type(self).__module__.rpartition('.')[2]})"
            )
        return found

    def _sound(self, rejected: RejectedPictures) -> Iterator[ListedImage]:
        """Yield the pairs whose path stays below the root and which have a caption."""
        for line, name, captions in self.pairs(self.config.path, rejected):
            texts = [caption.strip() for caption in captions if caption.strip()]
            try:
                check_picture_path(name, self.root)
                refuse_hidden(name)
                if not texts:
                    raise DataError("its caption is empty")
            except DataError as error:
                rejected.add(name or self.config.path.name, str(error), line)
                continue
            yield line, name, texts
