"""Stores entries in a folder of shards, which any number of processes write and read at the same time.

    put -> pending entries -> (at 256 MB, or after five minutes) -> WRITER-NUMBER.safetensors, atomically
    get -> pending entries, then the index of all shards -> the entry, compared with its checksum

Each writer names its shards by its own random number, so that names never clash, and files never change once
written. Two writers that compute the same entry leave two equal copies. A process that is killed loses only
its pending entries.
"""

import secrets
import time
from functools import lru_cache
from pathlib import Path
from threading import RLock

import torch

from lavibridge.core.errors import CacheError
from lavibridge.core.log import console
from lavibridge.training.cache.index import NO_KEYS, Index, Keys
from lavibridge.training.cache.shard import SUFFIX, Entry, Shard, write_shard

SHARD_BYTES = 256 * 10**6
FLUSH_SECONDS = 300.0
"""Seconds after which pending entries are written."""
LOOK_SECONDS = 10.0
"""Seconds between two searches for new shards of other processes."""
OPEN_SHARDS = 256


class Store:
    """Entries by key, stored in the number format ``dtype``."""

    def __init__(self, folder: Path, dtype: torch.dtype, shard_bytes: int = SHARD_BYTES) -> None:
        self.folder = folder
        self.dtype = dtype
        self.shard_bytes = shard_bytes
        self.writer = secrets.token_hex(6)
        self.written = 0
        self.waiting: dict[bytes, Entry] = {}
        self.waiting_bytes = 0
        self.waiting_since = 0.0
        self.lock = RLock()
        self.open = lru_cache(maxsize=OPEN_SHARDS)(Shard)
        self.said: set[Path] = set()
        self.keys: dict[Path, Keys] = {}
        self.shards: list[Path] = []
        self.index = Index()
        self.look()

    def look(self) -> None:
        """Index shards added since the last call; prints a note about damaged shards and skips them."""
        with self.lock:
            self.looked = time.monotonic()
            found = sorted(self.folder.glob(f"*{SUFFIX}"))
            if found == list(self.keys):
                return
            known, self.keys = self.keys, {}
            for path in found:
                try:
                    self.keys[path] = known[path] if path in known else Shard(path).keys
                except CacheError as error:
                    self.say(path, error)
                    self.keys[path] = NO_KEYS
            self.shards = list(self.keys)
            self.index = Index(list(self.keys.values()))

    def get(self, key: bytes) -> Entry | None:
        """Return an entry or None; prints a note about damaged copies and skips them."""
        with self.lock:
            if key not in self and time.monotonic() - self.looked > LOOK_SECONDS:
                self.look()
            if key in self.waiting:
                return self.waiting[key]
            for shard, row in self.index.places(key):
                path = self.shards[shard]
                try:
                    return self.open(path).read(row)
                except CacheError as error:
                    self.say(path, error)
        return None

    def rounded(self, entry: Entry) -> Entry:
        """Return an entry as `get` will read it: on the CPU, in the store's number format."""
        return {
            name: value.detach().to("cpu", self.dtype, copy=True).contiguous()
            for name, value in entry.items()
        }

    def put(self, key: bytes, entry: Entry) -> Entry:
        """Add an entry to the pending ones; returns it as `get` will read it."""
        kept = self.rounded(entry)
        with self.lock:
            if not self.waiting:
                self.waiting_since = time.monotonic()
            if key not in self.waiting:
                self.waiting[key] = kept
                self.waiting_bytes += sum(value.nbytes for value in kept.values())
        return kept

    @property
    def is_due(self) -> bool:
        """Whether it is time to write the pending entries."""
        is_late = bool(self.waiting) and time.monotonic() - self.waiting_since > FLUSH_SECONDS
        return is_late or self.waiting_bytes >= self.shard_bytes

    def flush(self) -> None:
        """Write the pending entries. If that fails, drops them and raises CacheError."""
        with self.lock:
            waiting, self.waiting, self.waiting_bytes = self.waiting, {}, 0
            if not waiting:
                return
            path = self.folder / f"{self.writer}-{self.written:05d}{SUFFIX}"
            try:
                write_shard(path, waiting)
            except OSError as error:
                raise self.unwritable(error) from error
            self.written += 1
            self.look()

    def unwritable(self, error: OSError) -> CacheError:
        """Make the error for a folder that cannot be written."""
        return CacheError(
            f"the cache {self.folder} cannot be written: {error.strerror or error}. Its earlier entries are "
            "intact; free some disk space, or set another training.cache.folder"
        )

    def __contains__(self, key: bytes) -> bool:
        return key in self.waiting or key in self.index

    def __len__(self) -> int:
        """Number of different entries on disk."""
        return self.index.distinct()

    def bytes(self) -> int:
        """Size of all shards."""
        return sum(path.stat().st_size for path in self.shards)

    def say(self, path: Path, error: CacheError) -> None:
        """Print one note about a damaged shard, whose entries training computes again."""
        if path not in self.said:
            self.said.add(path)
            console.print(
                f"note: {error}; training computes its entries again (`lavi cache verify --repair` removes "
                "the file)",
                soft_wrap=True,
            )
