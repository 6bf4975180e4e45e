"""Identifies files, models, settings and libraries by content, never by name, place or time alone.

    identity   = SHA-256 of the lines "name, SHA-256 of the file", in the order of the names
                 of a single file, its own SHA-256; "SHA-256 with IDENTITY" if a configuration is named
    card_hash  = first twelve hexadecimal digits of the SHA-256 of a card as JSON

Every start computes a model's identity, and weights may be tens of gigabytes. The cache folder therefore
keeps the hash of a large file, keyed by path, size, mtime and ctime, and recomputes it if one of these
differs. The operating system sets the ctime itself, so copying an old mtime onto a new file still changes it.
docs/decisions/0019 lists what is stored where, and by which key.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lavibridge.core.errors import ModelError
from lavibridge.core.files import file_sha256, write_json
from lavibridge.core.log import progress_bar
from lavibridge.core.paths import cache_folder
from lavibridge.core.sources import (
    RANDOM,
    find_configuration,
    find_gguf,
    find_model_file,
    find_single_file,
    locate_source,
)

_SUFFIXES = (".safetensors", ".json", ".jinja", ".model", ".tiktoken", ".txt")
"""Suffixes of the files that a model is loaded from."""
_ABOUT = ("hashes.json", "pretraining.json")
"""Files in the folders of shipped models that no model is loaded from."""
CACHED_HASH_BYTES = 2**20
"""Minimum size in bytes of files with a cached hash; smaller files are hashed each time."""
_SETTLED = 2.0
"""Minimum age in seconds of a file with a cached hash: a younger one may change without a new time stamp."""


def source_identity(
    source: str, revision: str | None = None, config: str | None = None, variant: str | None = None
) -> str:
    """Return the identity of a model as recipes name it; for a hub id, its commit.

    ``config`` is the configuration that a recipe names for a single file, and ``variant`` the number format
    in the names of the files that it loads. Raises ModelError if the source is no model.
    """
    if variant is not None:
        return f"{source_identity(source, revision, config)} variant {variant}"
    if source == RANDOM:
        return RANDOM
    configuration = find_configuration(source, config, revision)
    file = find_single_file(source, revision) or find_gguf(source, revision)
    if file is not None:
        own = cached_file_hash(file)
        return own if configuration is None else f"{own} with {source_identity(configuration)}"
    root = locate_source(source, revision)
    if Path(root).is_dir():
        return folder_identity(Path(root))
    for name in ("model_index.json", "config.json"):
        path = find_model_file(root, name, revision)
        if path is not None and "snapshots" in path.parts:  # models--owner--name/snapshots/COMMIT/config.json
            return f"{root}@{path.parts[path.parts.index('snapshots') + 1]}"
    raise ModelError(f"'{source}' has neither model_index.json nor config.json: it is not a model folder")


def model_identity(model: nn.Module, config: Any, *folded: str, added: Sequence[str] = ("variant",)) -> str:
    """Return class, files and options of a pretrained model: everything that affects its numbers, but not its
    location.

    ``folded`` are the hashes of weights that were added into the model's own. ``added`` are options without
    which models were identified before; they count unless they are None.
    """
    is_toy = config.source == RANDOM
    options = config.model_dump(mode="json", exclude={"source", "revision", "proxy", "lora_files"})
    configuration = options.pop("config", None)
    for name in added:
        if options.get(name, "") is None:
            del options[name]
    files = weights_hash(model) if is_toy else source_identity(config.source, config.revision, configuration)
    return json.dumps([type(model).__name__, files, options, *folded], sort_keys=True)


def card_hash(card: Any) -> str:
    """Return twelve hexadecimal digits that identify a card, which is a JSON value."""
    text = json.dumps(card, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def library_versions(*libraries: str) -> dict[str, str]:
    """Return the installed versions of libraries, which can affect the numbers."""
    return {library: _version(library) for library in libraries}


def folder_identity(folder: Path) -> str:
    """Return the SHA-256 over the files of a model's folder and its sub-folders, in hexadecimal."""
    files = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.suffix in _SUFFIXES and path.name not in _ABOUT and path.is_file()
    }
    digest = hashlib.sha256()
    with progress_bar("files") as bar:
        large = [path for path in files.values() if path.stat().st_size >= 2**30]
        task = bar.add_task(f"hashing {folder.name}", total=len(files), status="", visible=bool(large))
        for name in sorted(files):
            digest.update(f"{name}\0{cached_file_hash(files[name])}\n".encode())
            bar.advance(task)
    return digest.hexdigest()


def cached_file_hash(path: Path) -> str:
    """Return the SHA-256 of a file, from the cache if the file has not changed since."""
    real = path.resolve()
    found = real.stat()
    if found.st_size < CACHED_HASH_BYTES:
        return file_sha256(real)
    described = {
        "path": str(real),
        "bytes": found.st_size,
        "mtime_ns": found.st_mtime_ns,
        "ctime_ns": found.st_ctime_ns,
    }
    note = cache_folder() / "hashes" / f"{hashlib.sha256(str(real).encode()).hexdigest()[:32]}.json"
    try:
        kept = json.loads(note.read_text(encoding="utf-8"))
        known = str(kept.pop("sha256"))
        if kept == described:
            return known
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        pass  # not cached, or damaged: recomputed below
    made = file_sha256(real)
    is_settled = time.time() - found.st_mtime > _SETTLED and real.stat().st_ctime_ns == found.st_ctime_ns
    with suppress(OSError):  # an unwritable cache only costs time
        if is_settled:
            write_json(note, {**described, "sha256": made})
    return made


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"


def weights_hash(module: nn.Module) -> str:
    """Return the SHA-256 over a network's weights in memory, including names, shapes and dtypes."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
