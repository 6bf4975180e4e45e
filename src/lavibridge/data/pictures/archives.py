"""What the kinds share whose pictures lie inside larger files: archives, tables. The files are what changes.

DATA/a.tar  DATA/more/b.tar      a picture is known by the file that holds it, and by where in it
"""

from pathlib import Path
from typing import Any, ClassVar

from lavibridge.core.config import Changeable
from lavibridge.core.errors import DataError
from lavibridge.data.pictures.indexed import Indexed
from lavibridge.data.pictures.paths import Place, stamp
from lavibridge.data.pictures.rejected import Rejected
from lavibridge.data.pictures.table import Entry
from lavibridge.data.pictures.walk import walk


class Held(Indexed):
    """Base of the kinds that read one such file, or a folder of them."""

    class Config(Indexed.Config):
        """Settings of every kind whose pictures lie inside larger files."""

        path: Changeable[Place]
        """One such file, or a folder with such files in it and below it."""

    config: "Held.Config"
    suffix: ClassVar[str]
    """How the names of the files end."""
    holders: ClassVar[str]
    """What the files are called, for messages."""

    def describe(self) -> str:
        return str(self.config.path)

    @property
    def folder(self) -> Path:
        """Where the files' names start."""
        return self.config.path if self.config.path.is_dir() else self.config.path.parent

    def stamps(self) -> dict[str, Any]:
        """Size and time of every file that is read."""
        return {name: list(self._stamp(self.folder / name)) for name in self.files(Rejected())}

    def files(self, rejected: Rejected) -> list[str]:
        """The files' names, in their order; what else lies below the folder goes to `rejected`.

        DataError where there is none.
        """
        path = self.config.path
        if path.is_file():
            return [path.name]
        if not path.is_dir():
            raise DataError(f"there is no file or folder {path} (data.path)")
        found, names = walk(path), []
        for name in found.files:
            if name.lower().endswith(self.suffix):
                names.append(name)  # a link may lead anywhere: so the hub's library keeps what it has fetched
            else:
                rejected.note(name, f"it is none of the {self.holders} ({self.suffix}) that are read here")
        found.tell(rejected)
        if not names:
            why = "".join(f"; {name}: {reason}" for name, reason in found.refused.items())
            raise DataError(f"{path} holds no {self.holders} ({self.suffix}){why[:400]}")
        return names

    def stamp(self, entry: Entry) -> tuple[int, int]:
        return self._stamp(self.folder / entry.holder)

    def _stamp(self, path: Path) -> tuple[int, int]:
        """Also by the system's own time: captions inside have no hash that would tell at every visit."""
        size, changed = stamp(path)
        return size, max(changed, path.stat().st_ctime_ns)
