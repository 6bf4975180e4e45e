"""Backends that store entries during training: in memory as long as they fit, in a folder, or in both.

Training never fails because of a cache: if the folder cannot be written, the backend prints one note and
stores nothing more, and training computes entries again when it needs them.
"""

from abc import ABC, abstractmethod
from typing import final

from lavibridge.core.errors import CacheError
from lavibridge.core.log import console
from lavibridge.training.cache.shard import Entry
from lavibridge.training.cache.store import Store


class Backend(ABC):
    """Stores entries by key."""

    @abstractmethod
    def get(self, key: bytes) -> Entry | None:
        """Return the entry of a key, or None."""

    @abstractmethod
    def __contains__(self, key: bytes) -> bool:
        """Whether there is an entry of a key; reads none."""

    @abstractmethod
    def put(self, key: bytes, entry: Entry) -> Entry:
        """Store an entry if there is space; returns it as `get` will return it."""

    @abstractmethod
    def flush(self) -> None:
        """Write pending entries."""

    @abstractmethod
    def close(self) -> None:
        """Write pending entries, and free the memory."""


@final
class MemoryBackend(Backend):
    """Stores entries in memory until ``gigabytes`` are full, and none after that."""

    def __init__(self, gigabytes: float) -> None:
        self.room = gigabytes * 1e9
        self.entries: dict[bytes, Entry] = {}

    def get(self, key: bytes) -> Entry | None:
        return self.entries.get(key)

    def __contains__(self, key: bytes) -> bool:
        return key in self.entries

    def put(self, key: bytes, entry: Entry) -> Entry:
        # Copy: a row of a batch would keep the whole batch in memory.
        kept = {name: value.detach().cpu().clone() for name, value in entry.items()}
        size = sum(value.nbytes for value in kept.values())
        if size <= self.room and key not in self.entries:
            self.room -= size
            self.entries[key] = kept
        return kept

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.entries.clear()


@final
class DiskBackend(Backend):
    """Stores entries in a folder, which later runs use too; without ``is_writing`` it only reads them."""

    def __init__(self, store: Store, is_writing: bool = True) -> None:
        self.store = store
        self.is_writing = is_writing

    def get(self, key: bytes) -> Entry | None:
        return self.store.get(key)

    def __contains__(self, key: bytes) -> bool:
        return key in self.store

    def put(self, key: bytes, entry: Entry) -> Entry:
        if not self.is_writing:
            return self.store.rounded(entry)
        kept = self.store.put(key, entry)
        if self.store.is_due:
            self.flush()
        return kept

    def close(self) -> None:
        self.flush()

    def flush(self) -> None:
        """Write pending entries; if that fails, print the reason and write nothing more."""
        try:
            self.store.flush()
        except CacheError as error:
            self.is_writing = False
            console.print(f"note: {error}. Training continues without storing more entries", soft_wrap=True)


@final
class MemoryOverDiskBackend(Backend):
    """Stores all entries in a folder, and those that fit in memory too."""

    def __init__(self, memory: MemoryBackend, disk: DiskBackend) -> None:
        self.memory = memory
        self.disk = disk

    def get(self, key: bytes) -> Entry | None:
        found = self.memory.get(key)
        if found is None:
            found = self.disk.get(key)
            if found is not None:
                self.memory.put(key, found)
        return found

    def __contains__(self, key: bytes) -> bool:
        return key in self.memory or key in self.disk

    def put(self, key: bytes, entry: Entry) -> Entry:
        return self.memory.put(key, self.disk.put(key, entry))

    def flush(self) -> None:
        self.disk.flush()

    def close(self) -> None:
        self.disk.close()
        self.memory.close()
