"""Pairs from a folder of pictures, each with a text file of the same name.

    cat.jpg        cat.txt          one caption per line; each visit draws one of them
    more/dog.png   more/dog.txt     sub-folders count too, hidden ones (.ipynb_checkpoints) do not

The bytes decide whether a file is a picture: the check opens every file that has an image suffix or a caption
file.
"""

import os
from pathlib import Path, PurePosixPath
from typing import Any

from lavibridge.core.errors import DataError
from lavibridge.data.pictures.decoding import read_picture_bytes
from lavibridge.data.pictures.files import PictureFiles
from lavibridge.data.pictures.image_table import ImageTable, ImageTableEntry
from lavibridge.data.pictures.indexed import index_of
from lavibridge.data.pictures.paths import IMAGE_SUFFIXES, UNSUPPORTED_SUFFIXES, resolve_picture_path
from lavibridge.data.pictures.rejected import RejectedPictures
from lavibridge.data.pictures.text import parse_caption_text
from lavibridge.data.pictures.walk import FolderWalk, is_hidden, walk_folder

_CAPTIONS = (".txt", ".TXT")
"""Suffixes of caption files; if both exist, the first wins."""


class Folder(PictureFiles):
    """Every picture below a folder that has a caption file."""

    class Config(PictureFiles.Config):
        """Settings of `data.kind: folder`; `path` is the folder."""

    def __init__(self, config: "Folder.Config", rejected: RejectedPictures) -> None:
        """Raises DataError if the index is inside the data's folder, because every check would change it."""
        index, root = index_of(type(self), config).folder.resolve(), config.path.resolve()
        if index.is_relative_to(root) and not is_hidden(index.relative_to(root).as_posix()):
            raise DataError(
                f"the index {index} is inside the data's folder {root}: choose another data.index"
            )
        super().__init__(config, rejected)

    def stamps(self) -> dict[str, Any]:
        """Return the modification time of every folder; adding, removing or renaming a file changes it."""
        root = self.config.path
        if root.is_file():
            raise DataError(f"{root} is a file; data.kind: tsv reads a list, data.kind: folder reads folders")
        if not root.is_dir():
            raise DataError(f"there is no folder {root} (data.path)")
        # Escape names that are not UTF-8, so that JSON can store them.
        return {
            os.fsencode(name).decode(errors="backslashreplace"): at
            for name, at in walk_folder(root).folders.items()
        }

    def changed(self, table: ImageTable) -> bool:
        """Also compare the contents of the caption files."""
        if super().changed(table):
            return True
        for index in range(len(table)):
            sample = table.sample(index)
            try:
                if self._captions(sample.name) != sample.captions:
                    return True
            except DataError:
                return True
        return False

    def listing(self, rejected: RejectedPictures) -> list[ImageTableEntry]:
        root = self.config.path
        below_root = walk_folder(root)
        below_root.report(rejected)
        found: list[ImageTableEntry] = []
        for name in _select_pictures(below_root, rejected):
            try:
                found.append(ImageTableEntry(name=name, captions=self._captions(name)))
            except DataError as error:
                rejected.add(name, str(error))
        if not found and not rejected.entries:
            raise DataError(
                f"{root} holds no pictures ({', '.join(sorted(IMAGE_SUFFIXES))}) that are not hidden"
            )
        return found

    def _captions(self, name: str) -> tuple[str, ...]:
        """Read the captions of a picture. Raises DataError if there are none."""
        beside = [Path(name).with_suffix(end) for end in _CAPTIONS]
        path = next((each for each in beside if (self.root / each).exists()), None)
        if path is None:
            raise DataError(f"it has no caption file {beside[0].name}")
        try:
            data = read_picture_bytes(resolve_picture_path(self.root, path.as_posix()))
        except DataError as error:
            raise DataError(f"its caption file {path.name} cannot be used: {error}") from error
        return parse_caption_text(data, path.name)


def _select_pictures(listing: FolderWalk, rejected: RejectedPictures) -> list[str]:
    """Select picture files, by suffix or because they have a caption file; warn about all other files."""
    ends = {name: PurePosixPath(name).suffix.lower() for name in listing.files}
    stems = {name: str(PurePosixPath(name).with_suffix("")) for name in listing.files}
    named = {name for name, end in ends.items() if end in IMAGE_SUFFIXES | UNSUPPORTED_SUFFIXES}
    having = {stems[name] for name in named}
    captions = {name for name in listing.files if PurePosixPath(name).suffix in _CAPTIONS}
    captioned = {stems[name] for name in captions}
    pictures = []
    for name in listing.files:
        stem = stems[name]
        if name in named or (name not in captions and stem in captioned and stem not in having):
            pictures.append(name)
        elif name not in captions and stem not in having:
            rejected.warn(name, "it has no image suffix and no caption file")
    having |= {stems[name] for name in pictures}
    for name in sorted(captions):
        if stems[name] not in having:
            rejected.warn(name, "there is no picture for this caption")
        elif name.endswith(_CAPTIONS[1]) and name[: -len(_CAPTIONS[1])] + _CAPTIONS[0] in captions:
            rejected.warn(name, "another caption file of this name takes precedence")
    return pictures
