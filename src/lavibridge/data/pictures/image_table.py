"""The table of usable pictures: a memory-mapped Arrow file.

    name  captions  height  width  digest  bytes  mtime_ns  container  first  second  warning

`container` names the archive or table that holds the picture, and is empty for a picture file. `first` and
`second` locate the picture in it: offset and length, or row group and row. Rows take no memory until they are
read.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from lavibridge.data.base import Sample

IMAGE_TABLE_SCHEMA = pa.schema(
    {
        "name": pa.string(),
        "captions": pa.list_(pa.string()),
        "height": pa.int32(),
        "width": pa.int32(),
        "digest": pa.binary(32),
        "bytes": pa.int64(),
        "mtime_ns": pa.int64(),
        "container": pa.string(),
        "first": pa.int64(),
        "second": pa.int64(),
        "warning": pa.string(),
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageTableEntry:
    """One picture as listed, before it is read."""

    name: str
    captions: tuple[str, ...]
    line: int | None = None
    """First line of the list that names it."""
    container: str = ""
    """Archive or table below the root that holds it; empty for a picture file."""
    first: int = 0
    second: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageCheck:
    """The result of reading one picture."""

    stamp: tuple[int, int]
    """Size in bytes and modification time in nanoseconds of the file that holds it."""
    size: tuple[int, int] = (0, 0)
    """Height and width after the EXIF rotation."""
    digest: bytes = b""
    """SHA-256 of the picture's bytes."""
    reason: str | None = None
    """Why it is rejected; None if it is usable."""
    warning: str | None = None
    """A fault that does not prevent its use."""


def image_table_rows(entries: Sequence[ImageTableEntry], checks: Sequence[ImageCheck]) -> Any:
    """Convert entries and their checks to rows of the table."""
    columns = {
        "name": [entry.name for entry in entries],
        "captions": [entry.captions for entry in entries],
        "height": [check.size[0] for check in checks],
        "width": [check.size[1] for check in checks],
        "digest": [check.digest for check in checks],
        "bytes": [check.stamp[0] for check in checks],
        "mtime_ns": [check.stamp[1] for check in checks],
        "container": [entry.container for entry in entries],
        "first": [entry.first for entry in entries],
        "second": [entry.second for entry in entries],
        "warning": [check.warning for check in checks],
    }
    return pa.record_batch(columns, schema=IMAGE_TABLE_SCHEMA)


class ImageTable:
    """Random access to the rows."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows
        self.columns = {name: rows.column(name) for name in IMAGE_TABLE_SCHEMA.names}

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    def entry(self, index: int) -> ImageTableEntry:
        """Return a picture's name, captions and location."""
        return ImageTableEntry(
            name=self._at("name", index),
            captions=tuple(self._at("captions", index)),
            container=self._at("container", index),
            first=self._at("first", index),
            second=self._at("second", index),
        )

    def sample(self, index: int) -> Sample:
        """Return a picture's name and captions."""
        return Sample(name=self._at("name", index), captions=tuple(self._at("captions", index)))

    def image_check(self, index: int) -> ImageCheck:
        """Return the stored check of a picture."""
        return ImageCheck(
            stamp=(self._at("bytes", index), self._at("mtime_ns", index)),
            size=(self._at("height", index), self._at("width", index)),
            digest=self._at("digest", index),
            warning=self._at("warning", index),
        )

    def sizes(self) -> Int[np.ndarray, "picture 2"]:
        """Return height and width of every picture."""
        return np.stack([self.columns[side].to_numpy() for side in ("height", "width")], axis=1)

    def names(self) -> Iterator[str]:
        """Yield every name in order."""
        for chunk in self.columns["name"].chunks:
            yield from chunk.to_pylist()

    def stamps(self) -> Iterator[tuple[str, int, int]]:
        """Yield every name with the size and modification time of its file."""
        for chunk in self.rows.select(["name", "bytes", "mtime_ns"]).to_batches():
            yield from zip(*(column.to_pylist() for column in chunk.columns), strict=True)

    def _at(self, column: str, index: int) -> Any:
        return self.columns[column][index].as_py()


def open_image_table(path: Path) -> ImageTable:
    """Map a finished table into memory. Raises OSError or a pyarrow error if it is damaged."""
    return ImageTable(pa.ipc.open_file(pa.memory_map(os.fspath(path))).read_all())


def journal_entry(rows: Any) -> bytes:
    """Return a batch of rows as a journal holds it: length in 8 bytes, SHA-256, and the batch as Arrow."""
    data = rows.serialize().to_pybytes()
    return len(data).to_bytes(8, "little") + hashlib.sha256(data).digest() + data


def open_image_journal(path: Path) -> ImageTable:
    """Read a journal up to the point where its writer stopped or where it is damaged."""
    batches = []
    with suppress(OSError), open(path, "rb") as file:
        while head := file.read(40):
            length, digest = int.from_bytes(head[:8], "little"), head[8:]
            data = file.read(min(length, os.fstat(file.fileno()).st_size))
            if hashlib.sha256(data).digest() != digest:
                break
            batches.append(pa.ipc.read_record_batch(pa.py_buffer(data), IMAGE_TABLE_SCHEMA))
    return ImageTable(pa.Table.from_batches(batches, schema=IMAGE_TABLE_SCHEMA))
