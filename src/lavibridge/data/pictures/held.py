"""What the kinds share whose pictures lie inside larger files: archives, tables. The files are what changes.

DATA/a.tar  DATA/more/b.tar      a picture is known by the file that holds it, and by where in it
"""

from pathlib import Path
from typing import Any, ClassVar

from lavibridge.data.pictures.indexed import Indexed
from lavibridge.data.pictures.paths import Place, files_at, stamp
from lavibridge.data.pictures.table import Entry


class Held(Indexed):
    """Base of the kinds that read one such file, or a folder of them."""

    class Config(Indexed.Config):
        """Settings of every kind whose pictures lie inside larger files."""

        path: Place
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
        found = files_at(self.config.path, frozenset({self.suffix}), self.holders)
        return {path.relative_to(self.folder).as_posix(): list(self._stamp(path)) for path in found}

    def stamp(self, entry: Entry) -> tuple[int, int]:
        return self._stamp(self.folder / entry.holder)

    def _stamp(self, path: Path) -> tuple[int, int]:
        """Also by the system's own time: captions inside have no hash that would tell at every visit."""
        size, changed = stamp(path)
        return size, max(changed, path.stat().st_ctime_ns)
