"""Confines the paths of lists, archives and links to the data's root."""

from pathlib import Path, PurePosixPath, PureWindowsPath
from posixpath import normpath
from typing import Annotated

from pydantic import AfterValidator

from lavibridge.core.errors import DataError
from lavibridge.core.paths import expand_path

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".apng", ".webp"})
"""Suffixes of supported pictures in folders and archives; the bytes decide the actual format."""
UNSUPPORTED_SUFFIXES = frozenset(
    {
        ".avif",
        ".bmp",
        ".dng",
        ".gif",
        ".heic",
        ".heif",
        ".ico",
        ".j2k",
        ".jp2",
        ".jxl",
        ".pbm",
        ".pgm",
        ".pnm",
    }
    | {".ppm", ".psd", ".svg", ".tga", ".tif", ".tiff"}
)
"""Suffixes of unsupported pictures, rejected unless their bytes are of a supported format."""
AbsolutePath = Annotated[Path, AfterValidator(lambda path: expand_path(path).absolute())]
"""A path made absolute, because a recipe may be read again from another folder."""


def check_picture_path(name: str, root: Path) -> None:
    """Raise DataError for a path that is empty, absolute, holds a NUL byte, or escapes through `..`."""
    if not name:
        raise DataError("the path of the picture is empty")
    if "\0" in name:
        raise DataError("the path holds a NUL byte")
    # PureWindowsPath too: a list from Windows may hold C:\..., which is a plain file name elsewhere.
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or name.startswith("\\"):
        raise DataError(f"the path {name!r} is absolute; paths are read below the root {root}")
    if normpath(name.replace("\\", "/")).split("/")[0] == "..":
        raise DataError(f"the path {name!r} leads outside the root {root}")


def resolve_picture_path(root: Path, name: str) -> Path:
    """Resolve `name` and follow links. Raises DataError if the result is not below `root`."""
    check_picture_path(name, root)
    try:
        path = (root / name).resolve()
    except (OSError, RuntimeError, UnicodeError) as error:  # a cycle of links, or an impossible file name
        raise DataError(f"the path {name[:200]!r} cannot be followed: {error}") from error
    if not path.is_relative_to(root.resolve()):
        raise DataError(f"the path {name!r} leads outside the root {root}, through a link")
    return path


def file_stamp(path: Path) -> tuple[int, int]:
    """Return size in bytes and modification time in nanoseconds. Raises DataError if the file is missing."""
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise DataError("there is no such file") from error
    return found.st_size, found.st_mtime_ns
