"""What a thing depends on, by content: files, models, cards, libraries; never by name, place or time alone.

    identity   = SHA-256 of the lines "name, SHA-256 of the file", in the order of the names
    card_hash  = twelve figures of the SHA-256 of a card as JSON

Every start asks for a model's identity, and weights may be tens of gigabytes: the hash of a large file is
remembered in the cache folder by path, size and both of its times, and made anew when one of these differs.
A file's second time (ctime) is the system's own: who copies an old time onto a new file changes it all the
same. What is kept where, and by which of these, is in docs/decisions/0019.
"""

import hashlib
import json
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from torch import nn

from lavibridge.core.errors import ModelError
from lavibridge.core.files import cache_folder, resolve_source, sha256, write_json
from lavibridge.core.log import progress
from lavibridge.core.sources import RANDOM, find_model_file
from lavibridge.core.tensors import weights_hash

SUFFIXES = (".safetensors", ".json", ".jinja", ".model", ".tiktoken", ".txt")
"""What a model is read from."""
ABOUT = ("hashes.json", "pretraining.json")
"""Notes beside the shipped models, which no model is read from."""
REMEMBERED_FROM = 2**20
"""Bytes from which a file's hash is remembered; smaller ones are read each time."""
SETTLED = 2.0
"""Seconds for which a file must have been left alone: a younger one may change within its time stamp."""


def source_identity(source: str, revision: str | None = None) -> str:
    """The identity of a model as recipes name it; that of a hub id is its commit."""
    if source == RANDOM:
        return RANDOM
    root = resolve_source(source)
    if Path(root).is_dir():
        return identity(Path(root))
    for name in ("model_index.json", "config.json"):
        path = find_model_file(root, name, revision)
        if path is not None and "snapshots" in path.parts:  # models--owner--name/snapshots/COMMIT/config.json
            return f"{root}@{path.parts[path.parts.index('snapshots') + 1]}"
    raise ModelError(f"'{source}' has neither model_index.json nor config.json: it is no model folder")


def model_identity(model: nn.Module, config: Any, *folded: str) -> str:
    """Class, files and options of a pretrained model: what its numbers depend on, not where it lies.

    `folded` are the hashes of what was added into its weights.
    """
    is_toy = config.source == RANDOM
    files = weights_hash(model) if is_toy else source_identity(config.source, config.revision)
    options = config.model_dump(mode="json", exclude={"source", "revision"})
    return json.dumps([type(model).__name__, files, options, *folded], sort_keys=True)


def card_hash(card: Any) -> str:
    """Twelve figures that name a card, which is JSON: another card, another hash."""
    text = json.dumps(card, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def versions(*libraries: str) -> dict[str, str]:
    """The versions of libraries: with another one, numbers may be others."""
    return {library: _version(library) for library in libraries}


def identity(folder: Path) -> str:
    """The SHA-256 over the files of a model's folder, sub-folders included, in hexadecimal."""
    files = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.suffix in SUFFIXES and path.name not in ABOUT and path.is_file()
    }
    digest = hashlib.sha256()
    with progress("files") as bar:
        large = [path for path in files.values() if path.stat().st_size >= 2**30]
        task = bar.add_task(f"hashing {folder.name}", total=len(files), status="", visible=bool(large))
        for name in sorted(files):
            digest.update(f"{name}\0{file_hash(files[name])}\n".encode())
            bar.advance(task)
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """The SHA-256 of a file, from memory where the file has not changed since."""
    real = path.resolve()
    found = real.stat()
    if found.st_size < REMEMBERED_FROM:
        return sha256(real)
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
        pass  # not remembered, or damaged: made anew
    made = sha256(real)
    is_settled = time.time() - found.st_mtime > SETTLED and real.stat().st_ctime_ns == found.st_ctime_ns
    with suppress(OSError):  # a home that cannot be written to: it is only slower
        if is_settled:
            write_json(note, {**described, "sha256": made})
    return made


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"
