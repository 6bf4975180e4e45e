"""Finds the shard and row of a key by binary search over the sorted keys of all shards.

    16 bytes -> two numbers; search the sorted first numbers -> compare the second -> shard and row

A million entries take 24 MB.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import UInt8

Keys = UInt8[np.ndarray, "_ 16"]
NO_KEYS: Keys = np.zeros((0, 16), dtype=np.uint8)


class Index:
    """The shard and row of every key; copies of a key keep the order of their shards."""

    def __init__(self, shards: Sequence[Keys] = ()) -> None:
        halves = np.ascontiguousarray(np.concatenate([NO_KEYS, *shards])).view(">u8").astype(np.uint64)
        # Each shard is already sorted, so a stable sort only merges.
        order = np.argsort(halves[:, 0], kind="stable")
        self.first, self.second = halves[order, 0], halves[order, 1]
        counts = [len(keys) for keys in shards]
        self.shard = np.repeat(np.arange(len(counts), dtype=np.int32), counts)[order]
        rows = [np.arange(count, dtype=np.int32) for count in (0, *counts)]
        self.row = np.concatenate(rows)[order]

    def places(self, key: bytes) -> Iterator[tuple[int, int]]:
        """Yield (shard, row) of each copy of a key."""
        first, second = np.frombuffer(key, dtype=">u8").astype(np.uint64)
        begin = int(np.searchsorted(self.first, first))
        end = int(np.searchsorted(self.first, first, side="right"))
        for place in range(begin, end):
            if self.second[place] == second:
                yield int(self.shard[place]), int(self.row[place])

    def __contains__(self, key: bytes) -> bool:
        return any(True for _ in self.places(key))

    def distinct(self) -> int:
        """Number of different keys."""
        order = np.lexsort((self.second, self.first))
        first, second = self.first[order], self.second[order]
        repeats = (first[1:] == first[:-1]) & (second[1:] == second[:-1])
        return len(first) - int(repeats.sum())
