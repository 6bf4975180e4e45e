"""Pairs from a table of comma-separated values, with a first line that names its columns.

    file_name,text
    0001.jpg,"a red cube, seen from above"

It is the `metadata.csv` of the Hugging Face hub's picture folders. Several lines of one picture are brought
together. Paths are read below `root` (the list's own folder unless given) and never outside it.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from lavibridge.core.errors import DataError
from lavibridge.data.pictures.columns import CAPTION, PICTURE, choose
from lavibridge.data.pictures.files import Listed, Pair
from lavibridge.data.pictures.rejected import Rejected

LONGEST_FIELD = 16 * 2**20


class Csv(Listed):
    """Pictures and captions named by a table of comma-separated values."""

    class Config(Listed.Config):
        """Settings of `data.kind: csv`; `path` is the table."""

        image: str | None = None
        """Column of the picture's path; found by its usual names (file_name, image, ...) when not given."""
        caption: str | None = None
        """Column of the caption; found by its usual names (caption, text, ...) when not given."""
        delimiter: str = ","
        """The sign between two columns."""

    config: "Csv.Config"

    def pairs(self, path: Path, rejected: Rejected) -> Iterator[Pair]:
        csv.field_size_limit(LONGEST_FIELD)
        # Bytes that are no UTF-8 become half characters, by which their line is known and rejected.
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            rows = csv.reader(file, delimiter=self.config.delimiter, strict=True)
            columns = [name.strip() for name in next(rows, [])]
            if not columns:
                raise DataError(f"{path} is empty; its first line should name the columns")
            image = columns.index(choose(self.config.image, columns, PICTURE, "image", str(path)))
            caption = columns.index(choose(self.config.caption, columns, CAPTION, "caption", str(path)))
            while True:
                try:
                    row = next(rows)
                except StopIteration:
                    return
                except csv.Error as error:
                    rejected.add(path.name, f"the line is no CSV: {error}", rows.line_num)
                    continue
                if not any(cell.strip() for cell in row):
                    continue
                if len(row) <= max(image, caption):
                    reason = f"the line has {len(row)} columns, the first line has {len(columns)}"
                    rejected.add(path.name, reason, rows.line_num)
                    continue
                yield rows.line_num, row[image].strip(), [row[caption]]
