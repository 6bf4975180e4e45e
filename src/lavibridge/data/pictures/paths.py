"""Paths that data names: read below the data's root only, whatever a list, an archive or a link says."""

from pathlib import Path, PurePosixPath, PureWindowsPath
from posixpath import normpath
from typing import Annotated

from pydantic import AfterValidator

from lavibridge.core.errors import DataError
from lavibridge.core.paths import at_home

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".apng", ".webp"})
"""Ends of the names of pictures that are read, in folders and archives; what a file is its bytes decide."""
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
"""Ends of the names of pictures that are turned away by name, unless their bytes are of another kind."""
AbsolutePath = Annotated[Path, AfterValidator(lambda path: at_home(path).absolute())]
"""A path that means the same from any folder: a recipe may be read again from elsewhere."""


def check_relative_path(name: str, root: Path) -> None:
    """DataError for a path that is empty, absolute, climbs out of the root by `..`, or holds a NUL byte."""
    if not name:
        raise DataError("the path of the picture is empty")
    if "\0" in name:
        raise DataError("the path holds a NUL byte")
    # PureWindowsPath too: a list written on Windows may say C:\..., which is a plain file name elsewhere.
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or name.startswith("\\"):
        raise DataError(f"the path {name!r} is absolute; paths are read below the root {root}")
    if normpath(name.replace("\\", "/")).split("/")[0] == "..":
        raise DataError(f"the path {name!r} leads outside the root {root}")


def resolve_below(root: Path, name: str) -> Path:
    """The real path of `name`, links followed; DataError where it is not below `root`."""
    check_relative_path(name, root)
    try:
        path = (root / name).resolve()
    except (OSError, RuntimeError, UnicodeError) as error:  # a ring of links, or a name that no file can have
        raise DataError(f"the path {name[:200]!r} cannot be followed: {error}") from error
    if not path.is_relative_to(root.resolve()):
        raise DataError(f"the path {name!r} leads outside the root {root}, through a link")
    return path


def file_stamp(path: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in nanoseconds; DataError where there is no such file."""
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise DataError("there is no such file") from error
    return found.st_size, found.st_mtime_ns
