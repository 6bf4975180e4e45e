"""Files: atomic writing, JSON, hashes, and the folders of the cache and of shipped models.

Every file is written beside its destination and renamed into place, so no reader sees half a file.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from lavibridge.core.errors import LaviError, RunError
from lavibridge.core.lock import is_lock_file
from lavibridge.core.paths import configurations_folder, expand_path, models_folder, require_file_path

LFS = b"version https://git-lfs.github.com/spec"
"""How a file begins that stands for one that git-lfs has not fetched."""


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a whole file atomically and sync it to disk; creates the parent folders."""
    require_file_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def require_empty_folder(path: str | PathLike[str]) -> Path:
    """Return a new or empty output folder. Raises RunError if it holds anything."""
    folder = expand_path(path)
    if folder.exists() and not (folder.is_dir() and all(map(is_lock_file, folder.iterdir()))):
        raise RunError(f"{folder} exists already: choose a new folder")
    return folder


@contextmanager
def write_folder_atomic(folder: Path) -> Iterator[None]:
    """Write a new or empty folder in a block; if the block fails, remove everything it wrote."""
    was_there = folder.exists()
    try:
        yield
    except BaseException:
        if was_there:
            for path in folder.iterdir():
                if not is_lock_file(path):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        else:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically. Raises ValueError for NaN, which JSON does not have."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON. Raises LaviError naming the file if it is missing, unreadable or damaged."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise LaviError(f"{path} does not exist") from None
    except UnicodeDecodeError as error:
        raise LaviError(f"{path} is not valid JSON: {error}") from None
    except OSError as error:
        raise LaviError(f"{path} cannot be read: {error.strerror or error}") from None
    return parse_json(text, str(path))


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises LaviError naming the file as `read_json` does, and for other JSON."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise LaviError(f"{path} should hold a JSON object, found a {type(content).__name__}")
    return content


def parse_json(text: str, where: str) -> Any:
    """Parse JSON. Raises LaviError, which names ``where`` the text is from, for anything that is no JSON."""
    try:
        return json.loads(text)
    except RecursionError:
        raise LaviError(f"{where} is not valid JSON: it nests too deep") from None
    except ValueError as error:  # also for a number of more digits than Python reads
        raise LaviError(f"{where} is not valid JSON: {error}") from None


def split_json_lines(text: str) -> list[str]:
    """Return the lines of JSON lines without blank ones.

    `str.splitlines` would also cut at separators such as U+2028, which a name inside a line may hold.
    """
    return [line for line in text.split("\n") if line.strip()]


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def shipped_models() -> tuple[str, ...]:
    """Return the names of the miniature models in the package."""
    folder = models_folder()
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir())) if folder.is_dir() else ()


def shipped_configurations() -> tuple[str, ...]:
    """Return the names of the published configurations in the package, such as sdxl."""
    return tuple(sorted(path.name for path in configurations_folder().iterdir() if path.is_dir()))
