"""A folder of shards that any number of processes fill and read at the same time.

    put -> waiting -> (256 MB, or five minutes) -> WRITER-NUMBER.safetensors, whole, by one rename
    get -> waiting? -> index of all shards -> the entry, compared with its checksum

Every writer names its shards by a random number of its own, so that none can meet another's, and nothing that
has been written is ever changed. Two that make the same entry leave two equal copies. Who is killed loses
what was waiting and no more.
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
"""What was made in so much time is not risked any longer."""
LOOK_SECONDS = 10.0
"""How often it is looked whether other processes have written something."""
OPEN_SHARDS = 256


class Store:
    """Entries by key, kept in the number format `dtype`."""

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
        """Take up the shards that have come since; a damaged one is left out, with a word."""
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
        """An entry, or None; damaged copies are passed over, with a word."""
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
        """An entry as it is read back."""
        return {
            name: value.detach().to("cpu", self.dtype, copy=True).contiguous()
            for name, value in entry.items()
        }

    def put(self, key: bytes, entry: Entry) -> Entry:
        """Keep an entry; returns it as it will be read."""
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
        """Whether it is time to write what is waiting."""
        is_late = bool(self.waiting) and time.monotonic() - self.waiting_since > FLUSH_SECONDS
        return is_late or self.waiting_bytes >= self.shard_bytes

    def flush(self) -> None:
        """Write what is waiting; CacheError where it cannot be, and then nothing is waiting any longer."""
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
        """That the folder cannot be written to, as an error of ours."""
        return CacheError(
            f"the cache cannot be written to {self.folder}: {error.strerror or error}. What was written "
            "before is whole; make room, or name another training.cache.folder"
        )

    def __contains__(self, key: bytes) -> bool:
        return key in self.waiting or key in self.index

    def __len__(self) -> int:
        """How many different entries are on disk."""
        return self.index.distinct()

    def bytes(self) -> int:
        """How large the shards are."""
        return sum(path.stat().st_size for path in self.shards)

    def say(self, path: Path, error: CacheError) -> None:
        """Tell once of damage that is got over: what was kept there is made anew."""
        if path not in self.said:
            self.said.add(path)
            console.print(
                f"note: {error}; what it held is made anew (`lavi cache verify --repair` clears it away)",
                soft_wrap=True,
            )
