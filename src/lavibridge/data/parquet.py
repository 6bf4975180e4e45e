"""Pairs from Parquet tables: a column with the pictures' bytes or paths, and another with captions.

    image    bytes, or the hub's {bytes, path}, or text: a path below `root`
    caption  text, or a list of texts

Tables are never read whole: captions are read as one column, pictures by row group, and the last few groups
stay in memory. Training visits rows in random order, so use small row groups (the hub's have 100 to 1,000
rows) or cache the latents (`lavi cache`).
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lavibridge.core.config import Changeable
from lavibridge.core.errors import DataError
from lavibridge.data.pictures.archives import ArchivedPictures
from lavibridge.data.pictures.columns import (
    CAPTION_COLUMNS,
    IMAGE_COLUMNS,
    captions_of_column_value,
    choose_column,
)
from lavibridge.data.pictures.decoding import check_picture_bytes, read_picture_bytes
from lavibridge.data.pictures.image_table import ImageTableEntry
from lavibridge.data.pictures.paths import AbsolutePath, resolve_picture_path
from lavibridge.data.pictures.rejected import RejectedPictures
from lavibridge.data.pictures.walk import refuse_hidden

_GROUPS_KEPT = 4
_ROWS = 1024


class Parquet(ArchivedPictures):
    """Pictures and captions in one Parquet table or a folder of them."""

    class Config(ArchivedPictures.Config):
        """Settings of `data.kind: parquet`."""

        path: Changeable[AbsolutePath]
        """A .parquet file, or a folder that is searched for such files recursively."""
        image: str | None = None
        """Column of the pictures; by default a usual name (image, path, jpg, ...)."""
        caption: str | None = None
        """Column of the captions; by default a usual name (caption, text, ...)."""
        root: Changeable[AbsolutePath | None] = None
        """Folder that paths in the table start from; by default the table's own folder."""

    config: "Parquet.Config"
    suffix = ".parquet"
    plural = "Parquet tables"

    def __init__(self, config: "Parquet.Config", rejected: RejectedPictures) -> None:
        self.groups: OrderedDict[tuple[str, int], Any] = OrderedDict()
        self.turn = threading.Lock()
        super().__init__(config, rejected)

    def listing(self, rejected: RejectedPictures) -> list[ImageTableEntry]:
        found: list[ImageTableEntry] = []
        for name in self.files(rejected):
            try:
                with pq.ParquetFile(self.folder / name) as table:
                    found.extend(self._rows(name, table, rejected))
            except (pa.ArrowException, OSError) as error:
                rejected.add(name, f"the table cannot be read: {error}")
        return found

    def _rows(self, name: str, table: Any, rejected: RejectedPictures) -> Iterator[ImageTableEntry]:
        """Yield the pictures of one table, group by group."""
        column = choose_column(
            self.config.caption, table.schema_arrow.names, CAPTION_COLUMNS, "caption", name
        )
        self._picture_column(name, table)
        number = 0
        for group in range(table.num_row_groups):
            row = 0
            for batch in table.iter_batches(_ROWS, row_groups=[group], columns=[column]):
                for cell in batch.column(0).to_pylist():
                    number += 1
                    try:
                        captions = tuple(captions_of_column_value(cell))
                    except DataError as error:
                        rejected.add(f"{name}:{number}", str(error), number)
                    else:
                        yield ImageTableEntry(
                            name=f"{name}:{number}",
                            captions=captions,
                            line=number,
                            container=name,
                            first=group,
                            second=row,
                        )
                    row += 1

    def _picture_column(self, name: str, table: Any) -> str:
        return choose_column(self.config.image, table.schema_arrow.names, IMAGE_COLUMNS, "image", name)

    def read(self, entry: ImageTableEntry) -> bytes:
        with self.turn:
            cell = self._group(entry)[entry.second].as_py()
        if isinstance(cell, dict):  # as the hub's `datasets` writes pictures
            cell = cell.get("bytes") if cell.get("bytes") is not None else cell.get("path")
        if isinstance(cell, str):
            refuse_hidden(cell)
            return read_picture_bytes(resolve_picture_path(self.config.root or self.folder, cell))
        if not isinstance(cell, bytes):
            raise DataError(
                f"its cell holds {'nothing' if cell is None else type(cell).__name__} instead of a picture"
            )
        check_picture_bytes(len(cell))
        return cell

    def _group(self, entry: ImageTableEntry) -> Any:
        """Return the pictures of a row group, from the cache of recent groups if possible."""
        key = (entry.container, entry.first)
        if key not in self.groups:
            try:
                with pq.ParquetFile(self.folder / entry.container) as table:
                    column = self._picture_column(entry.container, table)
                    self.groups[key] = table.read_row_group(entry.first, columns=[column]).column(0)
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"the table {entry.container} cannot be read: {error}") from error
            while len(self.groups) > _GROUPS_KEPT:
                self.groups.popitem(last=False)
        self.groups.move_to_end(key)
        return self.groups[key]
