"""The table of the pictures that can be used: an Arrow file that is mapped into memory, not read.

    name  captions  height  width  digest  bytes  mtime_ns  holder  first  second  note

`holder` is the file that a picture lies in where it is none of its own (an archive, a table) and `first` and
`second` say where in it: offset and length, or row group and row. A million rows take no memory until they
are asked for.
"""

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

SCHEMA = pa.schema(
    {
        "name": pa.string(),
        "captions": pa.list_(pa.string()),
        "height": pa.int32(),
        "width": pa.int32(),
        "digest": pa.binary(32),
        "bytes": pa.int64(),
        "mtime_ns": pa.int64(),
        "holder": pa.string(),
        "first": pa.int64(),
        "second": pa.int64(),
        "note": pa.string(),
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One picture as its list, folder or archive names it, before it is read."""

    name: str
    captions: tuple[str, ...]
    line: int | None = None
    """Line of the list that names it first."""
    holder: str = ""
    """File below the root that it lies in; empty where it is a file of its own."""
    first: int = 0
    second: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What reading a picture gave."""

    stamp: tuple[int, int]
    """Bytes and time of change of the file that it lies in."""
    size: tuple[int, int] = (0, 0)
    """Height and width, upright."""
    digest: bytes = b""
    """SHA-256 of the picture's bytes."""
    reason: str | None = None
    """Why it cannot be used."""
    note: str | None = None
    """What is to be said of it although it is used."""


def batch_of(entries: Sequence[Entry], verdicts: Sequence[Verdict]) -> Any:
    """Rows of the table."""
    columns = {
        "name": [entry.name for entry in entries],
        "captions": [entry.captions for entry in entries],
        "height": [verdict.size[0] for verdict in verdicts],
        "width": [verdict.size[1] for verdict in verdicts],
        "digest": [verdict.digest for verdict in verdicts],
        "bytes": [verdict.stamp[0] for verdict in verdicts],
        "mtime_ns": [verdict.stamp[1] for verdict in verdicts],
        "holder": [entry.holder for entry in entries],
        "first": [entry.first for entry in entries],
        "second": [entry.second for entry in entries],
        "note": [verdict.note for verdict in verdicts],
    }
    return pa.record_batch(columns, schema=SCHEMA)


class Table:
    """Rows by number."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows
        self.columns = {name: rows.column(name) for name in SCHEMA.names}

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    def entry(self, index: int) -> Entry:
        """A picture and where it lies."""
        return Entry(
            name=self._at("name", index),
            captions=tuple(self._at("captions", index)),
            holder=self._at("holder", index),
            first=self._at("first", index),
            second=self._at("second", index),
        )

    def sample(self, index: int) -> Sample:
        """Name and captions of a picture."""
        return Sample(name=self._at("name", index), captions=tuple(self._at("captions", index)))

    def verdict(self, index: int) -> Verdict:
        """What reading it gave."""
        return Verdict(
            stamp=(self._at("bytes", index), self._at("mtime_ns", index)),
            size=(self._at("height", index), self._at("width", index)),
            digest=self._at("digest", index),
            note=self._at("note", index),
        )

    def sizes(self) -> Int[np.ndarray, "picture 2"]:
        """Height and width of every picture."""
        return np.stack([self.columns[side].to_numpy() for side in ("height", "width")], axis=1)

    def names(self) -> Iterator[str]:
        """Every name, in order."""
        for chunk in self.columns["name"].chunks:
            yield from chunk.to_pylist()

    def stamps(self) -> Iterator[tuple[str, int, int]]:
        """Every name with the size and time of change of its file."""
        for chunk in self.rows.select(["name", "bytes", "mtime_ns"]).to_batches():
            yield from zip(*(column.to_pylist() for column in chunk.columns), strict=True)

    def _at(self, column: str, index: int) -> Any:
        return self.columns[column][index].as_py()


def open_table(path: Path) -> Table:
    """Map a finished table; OSError or pyarrow's errors where it is damaged."""
    return Table(pa.ipc.open_file(pa.memory_map(os.fspath(path))).read_all())


def open_journal(path: Path) -> Table:
    """What a journal holds, up to where its writing was broken off."""
    batches = []
    with suppress(pa.ArrowInvalid, OSError, StopIteration), pa.OSFile(os.fspath(path)) as file:
        stream = pa.ipc.open_stream(file)
        if stream.schema == SCHEMA:
            while True:
                batches.append(stream.read_next_batch())
    return Table(pa.Table.from_batches(batches, schema=SCHEMA))
