"""Walks a folder: visits every file once, follows links inside the folder, and reports everything it skips.

    hidden files (.ipynb_checkpoints, ._x.jpg), system files (__MACOSX, Thumbs.db)      skipped
    a link to a folder inside                                                           read once, by its path
    a link to the outside or to nowhere, a folder that cannot be opened                 refused

A folder that a link leads to is listed under its own path if that is inside too.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from lavibridge.core.errors import DataError
from lavibridge.data.pictures.paths import IMAGE_SUFFIXES, UNSUPPORTED_SUFFIXES, resolve_picture_path
from lavibridge.data.pictures.rejected import RejectedPictures

_SYSTEM_FILES = frozenset(
    {
        "__macosx",
        "@eadir",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "thumbs.db",
        "desktop.ini",
    }
)
"""Names that operating systems leave in folders, in lower case; a NAS keeps thumbnails in `@eaDir`."""


@dataclass(kw_only=True)
class FolderWalk:
    """The contents of a folder, by names relative to it."""

    files: list[str] = field(default_factory=list)
    """Files sorted by name, so that the order is the same on every file system."""
    folders: dict[str, int] = field(default_factory=dict)
    """Each folder with its modification time in nanoseconds."""
    refused: dict[str, str] = field(default_factory=dict)
    """Each unreadable path with the reason."""
    duplicates: list[str] = field(default_factory=list)
    """Links to folders that were read already."""

    def report(self, rejected: RejectedPictures) -> None:
        """Reject unreadable paths, and warn about folders that are not read twice."""
        for name, reason in self.refused.items():
            rejected.add(name, reason)
        for name in self.duplicates:
            rejected.warn(name, "it links to a folder that is already read")


def is_hidden(name: str) -> bool:
    """Whether a path is hidden, lies in a hidden folder, or is a system file."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return any((part.startswith(".") and part != "..") or part.lower() in _SYSTEM_FILES for part in parts)


def refuse_hidden(name: str) -> None:
    """Raise DataError for a hidden path, which a folder would skip as well."""
    if is_hidden(name):
        raise DataError("it is hidden or in a hidden folder, which are not read; give it another name")


def walk_folder(root: Path) -> FolderWalk:
    """List everything below a folder that is not hidden; visits each folder once, so cycles of links end."""
    found, seen = FolderWalk(), set[tuple[int, int]]()
    waiting, links = [""], list[str]()
    while waiting or links:  # links last: a picture keeps its own path if it has one
        is_link = not waiting
        name = links.pop() if is_link else waiting.pop()
        try:
            path = resolve_picture_path(root, name) if is_link else root / name
            at = path.stat()
            if (at.st_dev, at.st_ino) in seen:
                found.duplicates.append(name)
                continue
            seen.add((at.st_dev, at.st_ino))
            found.folders[name or "."] = at.st_mtime_ns
            with os.scandir(path) as entries:
                _sort(list(entries), name, found, waiting, links)
        except DataError as error:
            found.refused[name] = str(error)
        except OSError as error:
            found.refused[name or "."] = f"the folder cannot be read: {error.strerror or error}"
    found.files.sort()
    return found


def _sort(
    entries: "list[os.DirEntry[str]]", above: str, found: FolderWalk, waiting: list[str], links: list[str]
) -> None:
    """Add a folder's entries to the files, to the waiting folders, or to the refused ones."""
    for entry in sorted(entries, key=lambda entry: entry.name, reverse=True):
        name = f"{above}/{entry.name}" if above else entry.name
        if is_hidden(entry.name):
            continue
        try:
            if entry.is_dir():
                (links if entry.is_symlink() else waiting).append(name)
                continue
            if entry.is_symlink() and not os.path.exists(entry.path):
                raise FileNotFoundError
        except OSError:  # also a cycle of links
            found.refused[name] = "it is a link that leads nowhere"
            continue
        found.files.append(name)


def pictures_below(folder: Path) -> list[Path]:
    """Return the non-hidden image files below a folder, sorted. Raises DataError for an unreadable path."""
    found = walk_folder(folder)
    for name, reason in found.refused.items():
        raise DataError(f"{folder}: {name}: {reason}: repair or remove it")
    ends = IMAGE_SUFFIXES | UNSUPPORTED_SUFFIXES
    return sorted(folder / name for name in found.files if PurePosixPath(name).suffix.lower() in ends)
