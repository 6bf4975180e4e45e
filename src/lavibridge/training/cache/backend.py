"""Backends keep entries while a bridge is trained: in memory while they fit, in a folder, or in both.

Training never fails for want of a cache: where the folder cannot be written to, a note says so once, and
entries are computed again when they are needed again.
"""

from abc import ABC, abstractmethod
from typing import final

from lavibridge.core.errors import CacheError
from lavibridge.core.log import console
from lavibridge.training.cache.shard import Entry
from lavibridge.training.cache.store import Store


class Backend(ABC):
    """Keeps entries by key."""

    @abstractmethod
    def get(self, key: bytes) -> Entry | None:
        """The entry of a key, or None."""

    @abstractmethod
    def __contains__(self, key: bytes) -> bool:
        """Whether there is an entry of a key; reads none."""

    @abstractmethod
    def put(self, key: bytes, entry: Entry) -> Entry:
        """Keep an entry if there is room; returns it as `get` will return it."""

    @abstractmethod
    def flush(self) -> None:
        """Write entries that wait to be written."""

    @abstractmethod
    def close(self) -> None:
        """Write entries that wait to be written, and free the memory."""


@final
class Memory(Backend):
    """Keeps the first entries in memory, up to ``gigabytes``, and no later ones."""

    def __init__(self, gigabytes: float) -> None:
        self.room = gigabytes * 1e9
        self.entries: dict[bytes, Entry] = {}

    def get(self, key: bytes) -> Entry | None:
        return self.entries.get(key)

    def __contains__(self, key: bytes) -> bool:
        return key in self.entries

    def put(self, key: bytes, entry: Entry) -> Entry:
        # Copies: a row of a batch would keep the whole batch alive.
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
class OnDisk(Backend):
    """Keeps entries in a folder, from run to run; without ``is_writing`` it reads those that are there."""

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
        """Write entries that wait to be written; if that fails, say why and write nothing more."""
        try:
            self.store.flush()
        except CacheError as error:
            self.is_writing = False
            console.print(f"note: {error}. Training goes on and keeps nothing more", soft_wrap=True)


@final
class MemoryOverDisk(Backend):
    """Keeps entries in a folder, and in memory those that fit."""

    def __init__(self, memory: Memory, disk: OnDisk) -> None:
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
