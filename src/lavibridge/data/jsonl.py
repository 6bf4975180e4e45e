"""Pairs from JSON lines: one object a line, with a picture's path and one caption or a list of them.

    {"file_name": "0001.jpg", "text": "a red cube"}
    {"file_name": "0002.jpg", "text": ["a table", "a table with a cube"]}

It is the `metadata.jsonl` of the Hugging Face hub's picture folders. Several lines of one picture are brought
together. Paths are read below `root` (the list's own folder unless given) and never outside it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lavibridge.core.errors import DataError
from lavibridge.data.pictures.columns import CAPTION_COLUMNS, IMAGE_COLUMNS, captions_of_cell, choose_column
from lavibridge.data.pictures.files import Listed, ListedImage
from lavibridge.data.pictures.rejected import Rejected
from lavibridge.data.pictures.text import read_lines


class JsonLines(Listed):
    """Pictures and captions named by a file of JSON lines."""

    class Config(Listed.Config):
        """Settings of `data.kind: jsonl`; `path` is the list."""

        image: str | None = None
        """Key of the picture's path; found by its usual names (file_name, image, ...) when not given."""
        caption: str | None = None
        """Key of the caption; found by its usual names (caption, text, prompt, ...) when not given."""

    config: "JsonLines.Config"

    def pairs(self, path: Path, rejected: Rejected) -> Iterator[ListedImage]:
        keys: tuple[str, str] | None = None
        for number, line in read_lines(path, rejected):
            try:
                row = parse(line)
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
                rejected.add(path.name, f"'{keys[0]}' is missing or no text", number)
                continue
            try:
                yield number, name, captions_of_cell(row.get(keys[1]))
            except DataError as error:
                rejected.add(name or path.name, str(error), number)


def parse(line: str) -> dict[str, Any]:
    """One line as an object; DataError where it is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"the line is not JSON: {error}") from error
    if not isinstance(row, dict) or not row:
        raise DataError("the line is no JSON object with keys")
    return row
