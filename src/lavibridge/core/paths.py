"""Resolves the paths that users type."""

from os import PathLike
from pathlib import Path

from lavibridge.core.errors import RecipeError, RunError


def expand_path(path: str | PathLike[str]) -> Path:
    """Expand `~` in a path. Raises RecipeError if that home folder does not exist."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise RecipeError(
            f"'{path}' names a home folder that does not exist: write the path in full"
        ) from None


def require_file_path(path: Path) -> Path:
    """Return the path of an output file. Raises RunError if it is a folder or empty."""
    file = expand_path(path)
    if not file.name or file.is_dir():
        raise RunError(f"'{path}' names a folder, but the output is a file: name a file")
    return file
