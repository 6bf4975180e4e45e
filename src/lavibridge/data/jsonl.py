"""Pairs from JSON lines: one object per line, with a picture's path and one caption or a list of captions.

    {"file_name": "0001.jpg", "text": "a red cube"}
    {"file_name": "0002.jpg", "text": ["a table", "a table with a cube"]}

This is the `metadata.jsonl` of image folders on the Hugging Face hub. Several lines of one picture add up to
several captions. Paths start from `root` (by default the list's own folder) and may not leave it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lavibridge.core.errors import DataError, LaviError
from lavibridge.core.files import parse_json
from lavibridge.data.pictures.columns import (
    CAPTION_COLUMNS,
    IMAGE_COLUMNS,
    captions_of_column_value,
    choose_column,
)
from lavibridge.data.pictures.files import ListedImage, ListedPictureFiles
from lavibridge.data.pictures.rejected import RejectedPictures
from lavibridge.data.pictures.text import read_text_lines


class JsonLines(ListedPictureFiles):
    """Pictures and captions named by a file of JSON lines."""

    class Config(ListedPictureFiles.Config):
        """Settings of `data.kind: jsonl`; `path` is the list."""

        image: str | None = None
        """Key of the picture's path; by default a usual name (file_name, image, ...)."""
        caption: str | None = None
        """Key of the caption; by default a usual name (caption, text, prompt, ...)."""

    config: "JsonLines.Config"

    def pairs(self, path: Path, rejected: RejectedPictures) -> Iterator[ListedImage]:
        keys: tuple[str, str] | None = None
        for number, line in read_text_lines(path, rejected):
            try:
                row = _parse_json_line(line)
            except DataError as error:
                rejected.add(path.name, str(error), number)
                continue
            if keys is None:
                where = f"{path}, line {number},"
                keys = (
                    choose_column(self.config.image, list(row), IMAGE_COLUMNS, "image", where),
                    choose_column(self.config.caption, list(row), CAPTION_COLUMNS, "caption", where),
                )
            name = row.get(keys[0])
            if not isinstance(name, str):
                rejected.add(path.name, f"'{keys[0]}' is missing or not text", number)
                continue
            try:
                yield number, name, captions_of_column_value(row.get(keys[1]))
            except DataError as error:
                rejected.add(name or path.name, str(error), number)


def _parse_json_line(line: str) -> dict[str, Any]:
    """Parse one line as an object. Raises DataError if it is not one."""
    try:
        row = parse_json(line, "the line")
    except LaviError as error:
        raise DataError(str(error)) from None
    if not isinstance(row, dict) or not row:
        raise DataError("the line is not a JSON object with keys")
    return row
