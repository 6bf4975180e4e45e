"""Where a path that was typed leads: to somebody's home, and to a file."""

from os import PathLike
from pathlib import Path

from lavibridge.core.errors import RecipeError, RunError


def at_home(path: str | PathLike[str]) -> Path:
    """A path with its `~` replaced; RecipeError where nobody has that home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise RecipeError(f"'{path}' names a home folder that there is not: write the path in full") from None


def as_file(path: Path) -> Path:
    """A path that a file is to be written to; RunError where it names a folder, or nothing."""
    file = at_home(path)
    if not file.name or file.is_dir():
        raise RunError(f"'{path}' names a folder, and a file is written: name a file")
    return file
