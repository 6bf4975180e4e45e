"""The shared base of kinds whose pictures are inside larger files, such as tar archives and Parquet tables.

DATA/a.tar  DATA/more/b.tar      the containing file and a position in it identify a picture
"""

from pathlib import Path
from typing import Any, ClassVar

from lavibridge.core.config import Changeable
from lavibridge.core.errors import DataError
from lavibridge.data.pictures.image_table import ImageTableEntry
from lavibridge.data.pictures.indexed import IndexedPictures
from lavibridge.data.pictures.paths import AbsolutePath, file_stamp
from lavibridge.data.pictures.rejected import RejectedPictures
from lavibridge.data.pictures.walk import walk_folder


class ArchivedPictures(IndexedPictures):
    """Base of the kinds that read one such file, or a folder of them."""

    class Config(IndexedPictures.Config):
        """Settings of every kind whose pictures are inside larger files."""

        path: Changeable[AbsolutePath]
        """One such file, or a folder that is searched for such files recursively."""

    config: "ArchivedPictures.Config"
    suffix: ClassVar[str]
    """Suffix of the files."""
    plural: ClassVar[str]
    """Plural name of the files, for messages."""

    def describe(self) -> str:
        return str(self.config.path)

    @property
    def folder(self) -> Path:
        """The folder that the files' names start from."""
        return self.config.path if self.config.path.is_dir() else self.config.path.parent

    def stamps(self) -> dict[str, Any]:
        """Return size and modification time of every file."""
        return {name: list(self._stamp(self.folder / name)) for name in self.files(RejectedPictures())}

    def files(self, rejected: RejectedPictures) -> list[str]:
        """Return the files' names in order; anything else below the folder goes to `rejected`.

        Raises DataError if there is no such file.
        """
        path = self.config.path
        if path.is_file():
            return [path.name]
        if not path.is_dir():
            raise DataError(f"there is no file or folder {path} (data.path)")
        found, names = walk_folder(path), []
        for name in found.files:
            if name.lower().endswith(self.suffix):
                names.append(name)  # a link may lead anywhere: the hub's cache uses links
            else:
                rejected.warn(name, f"this kind reads only {self.plural} ({self.suffix})")
        found.report(rejected)
        if not names:
            why = "".join(f"; {name}: {reason}" for name, reason in found.refused.items())
            raise DataError(f"{path} holds no {self.plural} ({self.suffix}){why[:400]}")
        return names

    def stamp(self, entry: ImageTableEntry) -> tuple[int, int]:
        return self._stamp(self.folder / entry.container)

    def _stamp(self, path: Path) -> tuple[int, int]:
        """Also use the ctime, because captions inside the file have no hash that every visit checks."""
        size, changed = file_stamp(path)
        return size, max(changed, path.stat().st_ctime_ns)
