"""Writes and reads one shard of a cache: a safetensors file that contains its own index.

    key          16 bytes an entry, in sorted order
    sum          CRC-32 of an entry's values
    NAME         the values called NAME of all entries, concatenated
    NAME.shape   their shapes

A shard is written under a temporary name, synced to disk and renamed, so that no partial shard exists. Its
header holds a hash of keys, sums and shapes. Reading compares each entry with its checksum and so detects a
flipped bit before training uses it.
"""

import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lavibridge.core.errors import CacheError
from lavibridge.core.tensors import save_tensors

FORMAT = "1"
KEY_BYTES = 16
SUFFIX = ".safetensors"

Entry = Mapping[str, Tensor]
"""The tensors of one sample by name; all entries of a folder have the same names."""


def write_shard(path: Path, entries: Mapping[bytes, Entry]) -> None:
    """Write one or more entries. Raises OSError, and leaves no file, if that fails."""
    keys = sorted(entries)
    names = sorted(entries[keys[0]])
    index: dict[str, Tensor] = {
        "key": torch.from_numpy(np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, KEY_BYTES).copy()),
        "sum": torch.tensor([checksum(entries[key]) for key in keys]),
    }
    for name in names:
        sizes = [tuple(entries[key][name].shape) for key in keys]
        index[f"{name}.shape"] = torch.tensor(sizes, dtype=torch.int32)
    values = {name: torch.cat([entries[key][name].flatten() for key in keys]) for name in names}
    save_tensors({**index, **values}, path, {"cache": FORMAT, "index": _index_hash(index)})


def checksum(entry: Entry) -> int:
    """CRC-32 over the values of an entry, in the order of their names."""
    found = 0
    for name in sorted(entry):
        found = zlib.crc32(entry[name].contiguous().flatten().view(torch.uint8).numpy().data, found)
    return found


class Shard:
    """A shard, open for reading. Raises CacheError if it is damaged or has another format."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.file = safe_open(str(path), "pt")
            told = self.file.metadata() or {}
            if told.get("cache") != FORMAT:
                raise CacheError(
                    f"{path} is not a cache shard of format {FORMAT}, the one that this version reads: "
                    "remove its folder"
                )
            present = self.file.keys()
            self.names = sorted(name for name in present if f"{name}.shape" in present)
            self.index = {
                name: self.file.get_tensor(name)
                for name in ("key", "sum", *(f"{name}.shape" for name in self.names))
            }
        except FileNotFoundError:
            raise CacheError(f"{path} no longer exists") from None
        except (SafetensorError, OSError) as error:
            raise CacheError(f"{path} is damaged: {error}") from None
        if told.get("index") != _index_hash(self.index):
            raise CacheError(f"{path} is damaged: its index does not match its checksum")

    @property
    def keys(self) -> UInt8[np.ndarray, "entry 16"]:
        """The keys of all entries, sorted."""
        keys: UInt8[np.ndarray, "entry 16"] = self.index["key"].numpy()
        return keys

    @cached_property
    def ends(self) -> dict[str, Int64[np.ndarray, " entry"]]:
        """The end of each entry's values, by name."""
        return {
            name: self.index[f"{name}.shape"].numpy().astype(np.int64).prod(axis=1).cumsum()
            for name in self.names
        }

    def read(self, row: int) -> Entry:
        """Return one entry. Raises CacheError if it is damaged."""
        entry: dict[str, Tensor] = {}
        try:
            for name in self.names:
                end = int(self.ends[name][row])
                begin = int(self.ends[name][row - 1]) if row else 0
                shape: Sequence[int] = self.index[f"{name}.shape"][row].tolist()
                entry[name] = self.file.get_slice(name)[begin:end].reshape(*shape)
        except (SafetensorError, OSError) as error:
            raise CacheError(f"{self.path} is damaged: {error}") from None
        if checksum(entry) != int(self.index["sum"][row]):
            raise CacheError(f"{self.path} is damaged: entry {row} does not match its checksum")
        return entry

    def whole(self) -> Iterator[tuple[bytes, Entry | None]]:
        """Yield every key with its entry, or None if the entry is damaged."""
        for row, key in enumerate(self.keys):
            try:
                yield key.tobytes(), self.read(row)
            except CacheError:
                yield key.tobytes(), None


def _index_hash(index: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(index):
        digest.update(name.encode() + b"\0")
        digest.update(index[name].contiguous().numpy().data)
    return digest.hexdigest()
