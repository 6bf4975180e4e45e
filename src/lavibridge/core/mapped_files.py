"""Lets go of the pages of a mapped weight file that nobody reads any more.

    file, mapped into memory --copy--> weight in another layout or format        both in memory, until ...
                             <--release-- the pages of the file go

Safetensors maps a whole file, and the mapping lasts as long as one of its tensors. Whoever copies weights one
by one releases each after its copy, so that memory never holds two copies of a model. Released pages are read
from the file again if anything still asks for them. Only Linux says what is mapped; elsewhere this does
nothing.
"""

import ctypes
import mmap
import sys
from pathlib import Path

from torch import Tensor

_MAPS = Path("/proc/self/maps")


class MappedFiles:
    """The weight files that are mapped into this process's memory at the moment."""

    def __init__(self) -> None:
        self._ranges = _mapped_ranges()

    def release(self, tensor: Tensor) -> None:
        """Let go of the pages of a tensor that was read from a file; do nothing for any other."""
        start, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
        first, last = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first and any(low <= start and end <= high for low, high in self._ranges):
            _libc().madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), mmap.MADV_DONTNEED)


def trim_heap() -> None:
    """Return freed memory to the system: the C library keeps small blocks between others that are in use."""
    trim = getattr(_libc(), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _mapped_ranges() -> list[tuple[int, int]]:
    """First and last address of each mapped safetensors file."""
    if sys.platform != "linux" or not _MAPS.is_file():
        return []
    found = []
    for line in _MAPS.read_text(encoding="utf-8", errors="replace").splitlines():
        fields = line.split(maxsplit=5)  # addresses, rights, offset, device, inode, name
        if len(fields) == 6 and fields[5].endswith(".safetensors"):
            low, _, high = fields[0].partition("-")
            found.append((int(low, 16), int(high, 16)))
    return found


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
