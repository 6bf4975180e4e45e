"""Where entries are kept while a bridge is trained: in memory while they fit, or in a folder.

Training never fails for want of a cache: where the folder cannot be written to it is said once, and what
would have been kept is made anew when it is met again.
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
        """An entry, if it is there."""

    @abstractmethod
    def put(self, key: bytes, entry: Entry) -> Entry:
        """Keep an entry; returns it as `get` will give it."""

    @abstractmethod
    def close(self) -> None:
        """Nothing is put any more."""


@final
class Memory(Backend):
    """In memory, those that are met first, up to so many gigabytes."""

    def __init__(self, gigabytes: float) -> None:
        self.room = gigabytes * 1e9
        self.entries: dict[bytes, Entry] = {}

    def get(self, key: bytes) -> Entry | None:
        return self.entries.get(key)

    def put(self, key: bytes, entry: Entry) -> Entry:
        # Copies: a row of a batch would keep the whole batch alive.
        kept = {name: value.detach().cpu().clone() for name, value in entry.items()}
        size = sum(value.nbytes for value in kept.values())
        if size <= self.room and key not in self.entries:
            self.room -= size
            self.entries[key] = kept
        return kept

    def close(self) -> None:
        self.entries.clear()


@final
class OnDisk(Backend):
    """In a folder, from run to run."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.is_writing = True

    def get(self, key: bytes) -> Entry | None:
        return self.store.get(key)

    def put(self, key: bytes, entry: Entry) -> Entry:
        if not self.is_writing:
            return self.store.rounded(entry)
        kept = self.store.put(key, entry)
        if self.store.is_due:
            self.write()
        return kept

    def close(self) -> None:
        self.write()

    def write(self) -> None:
        """Write what is waiting, or say why that cannot be done and leave it from now on."""
        try:
            self.store.flush()
        except CacheError as error:
            self.is_writing = False
            console.print(f"note: {error}. Training goes on and keeps nothing more", soft_wrap=True)
