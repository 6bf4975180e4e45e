"""Pairs from Parquet tables: a column with the pictures' bytes or their paths, another with captions.

    image    bytes, or the hub's {bytes, path}, or text: a path below `root`
    caption  text, or a list of texts

Tables are never read whole: captions come column by column, and pictures by the row group that they lie in,
of which the last few stay in memory. As visits jump about, row groups should be small (the hub's have 100 to
1,000 rows) or the latents cached (`lavi cache`).
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lavibridge.core.config import Changeable
from lavibridge.core.errors import DataError
from lavibridge.data.pictures.archives import Held
from lavibridge.data.pictures.columns import CAPTION, PICTURE, choose, texts
from lavibridge.data.pictures.paths import Place, below
from lavibridge.data.pictures.read import check_length, read_file
from lavibridge.data.pictures.rejected import Rejected
from lavibridge.data.pictures.table import Entry
from lavibridge.data.pictures.walk import refuse_hidden

GROUPS_KEPT = 4
ROWS = 1024


class Parquet(Held):
    """Pictures and captions in one Parquet table or a folder of them."""

    class Config(Held.Config):
        """Settings of `data.kind: parquet`."""

        path: Changeable[Place]
        """A .parquet file, or a folder with such files in it and below it."""
        image: str | None = None
        """Column of the pictures; found by its usual names (image, path, jpg, ...) when not given."""
        caption: str | None = None
        """Column of the captions; found by its usual names (caption, text, ...) when not given."""
        root: Changeable[Place | None] = None
        """Folder that paths in the table start from; the table's own folder when not given."""

    config: "Parquet.Config"
    suffix = ".parquet"
    holders = "Parquet tables"

    def __init__(self, config: "Parquet.Config", rejected: Rejected) -> None:
        self.groups: OrderedDict[tuple[str, int], Any] = OrderedDict()
        self.turn = threading.Lock()
        super().__init__(config, rejected)

    def listing(self, rejected: Rejected) -> list[Entry]:
        found: list[Entry] = []
        for name in self.files(rejected):
            try:
                with pq.ParquetFile(self.folder / name) as table:
                    found.extend(self._rows(name, table, rejected))
            except (pa.ArrowException, OSError) as error:
                rejected.add(name, f"the table cannot be read: {error}")
        return found

    def _rows(self, name: str, table: Any, rejected: Rejected) -> Iterator[Entry]:
        """The pictures of one table, group by group."""
        column = choose(self.config.caption, table.schema_arrow.names, CAPTION, "caption", name)
        self._picture_column(name, table)
        number = 0
        for group in range(table.num_row_groups):
            row = 0
            for batch in table.iter_batches(ROWS, row_groups=[group], columns=[column]):
                for cell in batch.column(0).to_pylist():
                    number += 1
                    try:
                        captions = tuple(texts(cell))
                    except DataError as error:
                        rejected.add(f"{name}:{number}", str(error), number)
                    else:
                        yield Entry(
                            name=f"{name}:{number}",
                            captions=captions,
                            line=number,
                            holder=name,
                            first=group,
                            second=row,
                        )
                    row += 1

    def _picture_column(self, name: str, table: Any) -> str:
        return choose(self.config.image, table.schema_arrow.names, PICTURE, "image", name)

    def read(self, entry: Entry) -> bytes:
        with self.turn:
            cell = self._group(entry)[entry.second].as_py()
        if isinstance(cell, dict):  # as the hub's `datasets` writes pictures
            cell = cell.get("bytes") if cell.get("bytes") is not None else cell.get("path")
        if isinstance(cell, str):
            refuse_hidden(cell)
            return read_file(below(self.config.root or self.folder, cell))
        if not isinstance(cell, bytes):
            raise DataError(
                f"its cell holds {'nothing' if cell is None else type(cell).__name__}, no picture"
            )
        check_length(len(cell))
        return cell

    def _group(self, entry: Entry) -> Any:
        """The pictures of a row group, read once while they stay among the last few."""
        key = (entry.holder, entry.first)
        if key not in self.groups:
            try:
                with pq.ParquetFile(self.folder / entry.holder) as table:
                    column = self._picture_column(entry.holder, table)
                    self.groups[key] = table.read_row_group(entry.first, columns=[column]).column(0)
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"the table {entry.holder} cannot be read: {error}") from error
            while len(self.groups) > GROUPS_KEPT:
                self.groups.popitem(last=False)
        self.groups.move_to_end(key)
        return self.groups[key]
