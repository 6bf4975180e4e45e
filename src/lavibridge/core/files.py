"""Files: atomic writing, JSON, hashes, and the search for models.

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

from lavibridge.core.errors import LaviError, ModelError, RunError, did_you_mean
from lavibridge.core.lock import is_lock_file
from lavibridge.core.packaged import PACKAGED, packaged_path
from lavibridge.core.paths import expand_path, require_file_path


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
    """Read JSON. Raises LaviError naming the file if it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LaviError(f"{path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise LaviError(f"{path} is not valid JSON: {error}") from None


def split_json_lines(text: str) -> list[str]:
    """Return the lines of JSON lines without blank ones.

    `str.splitlines` would also cut at separators such as U+2028, which a name inside a line may hold.
    """
    return [line for line in text.split("\n") if line.strip()]


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def shipped_models() -> tuple[str, ...]:
    """Return the names of the miniature models in the package."""
    folder = models_folder()
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir())) if folder.is_dir() else ()


GGUF = ".gguf"
"""Suffix of a language model as one file, in the format of llama.cpp."""
SAFETENSORS = ".safetensors"
"""Suffix of a vision model as one file: a single-file checkpoint."""
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".h5", ".msgpack")
"""Suffixes of weights that can run code when they are loaded, and are never loaded."""


def configurations_folder() -> Path:
    """Return the folder of the published configurations in the package, which have no weights."""
    return Path(__file__).parent.parent / "vision" / "configurations"


def shipped_configurations() -> tuple[str, ...]:
    """Return the names of the published configurations in the package, such as sdxl."""
    return tuple(sorted(path.name for path in configurations_folder().iterdir() if path.is_dir()))


def resolve_source(source: str) -> str:
    """Resolve a model source: a folder, a GGUF or safetensors file, a name, or a hub id.

    A shipped or packaged model, or a shipped configuration, becomes its path. Returns a hub id unchanged,
    also one with a file behind it (OWNER/NAME/FILE.gguf). Raises ModelError for a missing path, a pickle, an
    unknown short name, or a packaged model that is not installed.
    """
    path = expand_path(source)
    suffix = path.suffix.lower()
    is_file = suffix in (GGUF, SAFETENSORS)
    if path.is_dir() or (is_file and path.is_file()):
        return str(path)
    if suffix in PICKLES and path.is_file():
        raise ModelError(
            f"'{source}' is a pickle, which can run code when it is loaded, and is not read: take the "
            "model's safetensors file, or convert this one in an isolated environment"
        )
    shipped = shipped_models()
    if source in shipped:
        return str(models_folder() / source)
    if source in shipped_configurations():
        return str(configurations_folder() / source)
    if source in PACKAGED:
        return str(packaged_path(source))
    parts = source.split("/")
    is_path = source.startswith(("/", ".", "~")) or not all(parts) or path.exists()
    if is_file and (is_path or len(parts) < 3):
        name = "GGUF" if suffix == GGUF else "safetensors"
        raise ModelError(
            f"there is no {name} file '{source}': give its path, or OWNER/NAME/FILE{suffix} on the hub"
        )
    if is_path or source.startswith("mini-") or (len(parts) > 2 and not is_file):
        names = (*shipped, *PACKAGED)
        raise ModelError(
            f"there is no model folder '{source}'{did_you_mean(source, names)} "
            f"(models by name: {', '.join(names)}; or a folder, a GGUF or safetensors file, or a hub id such "
            "as 't5-large')"
        )
    return source
