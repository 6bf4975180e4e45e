"""Resolves the paths that users type."""

import os
from os import PathLike
from os.path import normpath
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


def is_below(path: Path, root: Path) -> bool:
    """Whether a path lies below a folder once links are followed; False if they cannot be."""
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError):  # a cycle of links, or an impossible file name
        return False


def linked_root(folder: Path) -> Path:
    """Return the folder that links in ``folder`` may lead to: itself, or of a snapshot, its repository."""
    return folder.parent.parent if folder.parent.name == "snapshots" else folder


def path_below(root: Path, name: str) -> Path:
    """Return the path of a file that another file names. Raises RunError if it is not below ``root``.

    Links count as what they point to; in the hub's cache they lead from a snapshot to its repository.
    """
    path = root / name
    is_named_below = Path(normpath(path)).is_relative_to(normpath(root))
    if not is_named_below or not is_below(path, linked_root(root)):
        raise RunError(
            f"{root} names the file {name[:200]!r}, which is not in this folder: files outside are not read; "
            "take another copy of the folder"
        )
    return path


def require_file_path(path: Path) -> Path:
    """Return the path of an output file. Raises RunError if it is a folder or empty."""
    file = expand_path(path)
    if not file.name or file.is_dir():
        raise RunError(f"'{path}' names a folder, but the output is a file: name a file")
    return file


def cache_folder() -> Path:
    """Return the folder for reproducible files: $LAVIBRIDGE_CACHE, or lavibridge/ in the user's cache."""
    configured = os.environ.get("LAVIBRIDGE_CACHE")
    if configured:
        return expand_path(configured).absolute()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else expand_path("~/.cache")) / "lavibridge"


def models_folder() -> Path:
    """Return the folder of the miniature models in the package."""
    return Path(__file__).parent.parent / "world" / "models"


def configurations_folder() -> Path:
    """Return the folder of the published configurations in the package, which have no weights."""
    return Path(__file__).parent.parent / "vision" / "configurations"
