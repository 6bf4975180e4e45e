"""Lines of text files that strangers wrote."""

from collections.abc import Iterator
from pathlib import Path

from lavibridge.core.errors import DataError
from lavibridge.data.pictures.rejected import Rejected

LONGEST_LINE = 16 * 2**20
"""Bytes in one line of a list."""


def read_lines(path: Path, rejected: Rejected) -> Iterator[tuple[int, str]]:
    """Number and text of every line that is not blank, without its end and a byte-order mark.

    Lines end with LF or CRLF and nowhere else; what is not UTF-8 goes to `rejected`.
    """
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(LONGEST_LINE):
            number += 1
            if len(raw) == LONGEST_LINE and not raw.endswith(b"\n"):
                while raw and not raw.endswith(b"\n"):  # the rest of it
                    raw = file.readline(LONGEST_LINE)
                rejected.add(path.name, f"the line has more than {LONGEST_LINE:,} bytes", number)
                continue
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            try:
                line = raw.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                rejected.add(path.name, f"the line is not UTF-8 ({error.reason}); save it as UTF-8", number)
                continue
            if line.strip():
                yield number, line


def parse_captions(data: bytes, name: str) -> tuple[str, ...]:
    """The captions in a text file's bytes, one a line; DataError when there is none."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"its caption file {name} is not UTF-8") from error
    captions = tuple(line.strip() for line in text.split("\n") if line.strip())
    if not captions:
        raise DataError(f"its caption file {name} is empty")
    return captions


def shorten(text: str) -> str:
    """At most sixty characters of a line, for a message."""
    return text if len(text) <= 60 else text[:57] + "..."
