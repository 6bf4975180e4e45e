"""Pairs from a CSV table whose first line names its columns.

    file_name,text
    0001.jpg,"a red cube, seen from above"

This is the `metadata.csv` of image folders on the Hugging Face hub. Several lines of one picture add up to
several captions. Paths start from `root` (by default the table's own folder) and may not leave it.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from pydantic import field_validator

from lavibridge.core.errors import DataError
from lavibridge.data.pictures.columns import CAPTION_COLUMNS, IMAGE_COLUMNS, choose_column
from lavibridge.data.pictures.files import ListedImage, ListedPictureFiles
from lavibridge.data.pictures.rejected import RejectedPictures

_LONGEST_FIELD = 16 * 2**20


class Csv(ListedPictureFiles):
    """Pictures and captions named by a CSV table."""

    class Config(ListedPictureFiles.Config):
        """Settings of `data.kind: csv`; `path` is the table."""

        image: str | None = None
        """Column of the picture's path; by default a usual name (file_name, image, ...)."""
        caption: str | None = None
        """Column of the caption; by default a usual name (caption, text, ...)."""
        delimiter: str = ","
        """The character between two columns, `\\t` for a tab."""

        @field_validator("delimiter")
        @classmethod
        def _is_one_sign(cls, delimiter: str) -> str:
            """Accept one character that can separate columns."""
            sign = {"\\t": "\t", "tab": "\t"}.get(delimiter, delimiter)
            if len(sign) != 1 or sign in '"\r\n\0' or (not sign.isprintable() and sign != "\t"):
                raise ValueError("must be one character, such as ',' or ';', or \\t for a tab")
            return sign

    config: "Csv.Config"

    def pairs(self, path: Path, rejected: RejectedPictures) -> Iterator[ListedImage]:
        csv.field_size_limit(_LONGEST_FIELD)
        # Bytes that are not UTF-8 become lone surrogates; the check rejects lines that contain them.
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            rows = csv.reader(file, delimiter=self.config.delimiter, strict=True)
            columns = _read_header(path, rows)
            where = f"{path}, read with data.delimiter={self.config.delimiter!r},"
            image = _column_index(
                choose_column(self.config.image, columns, IMAGE_COLUMNS, "image", where), columns, where
            )
            caption = _column_index(
                choose_column(self.config.caption, columns, CAPTION_COLUMNS, "caption", where), columns, where
            )
            while True:
                try:
                    row = next(rows)
                except StopIteration:
                    return
                except csv.Error as error:
                    rejected.add(path.name, f"the line is not CSV: {error}", rows.line_num)
                    continue
                if not any(cell.strip() for cell in row):
                    continue
                if len(row) <= max(image, caption):
                    reason = f"the line has {len(row)} columns, the first line has {len(columns)}"
                    rejected.add(path.name, reason, rows.line_num)
                    continue
                yield rows.line_num, row[image].strip(), [row[caption]]


def _read_header(path: Path, rows: Iterator[list[str]]) -> list[str]:
    """Return the column names. Raises DataError if the first line names none."""
    try:
        columns = [name.strip() for name in next(rows, [])]
    except csv.Error as error:
        raise DataError(f"the first line of {path}, which names the columns, is not CSV: {error}") from error
    if not any(columns):
        raise DataError(f"the first line of {path} is empty; it must name the columns")
    text = "".join(columns)
    if "\0" in text or any("\ud800" <= sign <= "\udfff" for sign in text):
        raise DataError(f"the first line of {path} is not UTF-8; save the table as UTF-8")
    return columns


def _column_index(name: str, columns: list[str], where: str) -> int:
    """Return the index of a column. Raises DataError if several columns have its name."""
    if columns.count(name) > 1:
        raise DataError(f"{where} has {columns.count(name)} columns '{name}'; give each a different name")
    return columns.index(name)
