"""Pairs from a folder of pictures, each with a text file of the same name beside it.

cat.jpg   cat.txt      the text file holds the captions, one a line; each visit draws one of them
more/dog.png   more/dog.txt      sub-folders are read too
"""

import os
from pathlib import Path
from typing import Any

from lavibridge.core.errors import DataError
from lavibridge.data.pictures.files import PictureFiles
from lavibridge.data.pictures.paths import SUFFIXES, below
from lavibridge.data.pictures.read import read_file
from lavibridge.data.pictures.rejected import Rejected
from lavibridge.data.pictures.table import Entry, Table
from lavibridge.data.pictures.text import captions_in


class Folder(PictureFiles):
    """Every picture below a folder that has a caption file."""

    class Config(PictureFiles.Config):
        """Settings of `data.kind: folder`; `path` is the folder."""

    def stamps(self) -> dict[str, Any]:
        """The times of all folders: a file that comes, goes or is renamed changes that of its folder."""
        root = self.config.path
        if root.is_file():
            raise DataError(f"{root} is a file; data.kind: tsv reads a list, data.kind: folder reads folders")
        if not root.is_dir():
            raise DataError(f"there is no folder {root} (data.path)")
        folders = sorted(folder for folder, _, _ in os.walk(root))
        return {os.path.relpath(folder, root): os.stat(folder).st_mtime_ns for folder in folders}

    def changed(self, table: Table) -> bool:
        """Also whether a caption file holds something else."""
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

    def listing(self, rejected: Rejected) -> list[Entry]:
        root = self.config.path
        found: list[Entry] = []
        names = [Path(folder, name) for folder, _, files in os.walk(root) for name in files]
        # Sorted by text: the order must not depend on the file system.
        for path in sorted(names, key=lambda path: path.relative_to(root).as_posix()):
            if path.suffix.lower() not in SUFFIXES:
                continue
            name = path.relative_to(root).as_posix()
            try:
                found.append(Entry(name=name, captions=self._captions(name)))
            except DataError as error:
                rejected.add(name, str(error))
        if not found and not rejected.entries:
            raise DataError(f"{root} holds no pictures ({', '.join(sorted(SUFFIXES))})")
        return found

    def _captions(self, name: str) -> tuple[str, ...]:
        """The captions beside a picture; DataError when there are none."""
        path = Path(name).with_suffix(".txt")
        if not (self.root / path).exists():
            raise DataError(f"it has no caption file {path.name}")
        try:
            data = read_file(below(self.root, path.as_posix()))
        except DataError as error:
            raise DataError(f"its caption file {path.name} is no use: {error}") from error
        return captions_in(data, path.name)
