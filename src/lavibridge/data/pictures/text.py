"""Reads lines and captions from untrusted text files."""

from collections.abc import Iterator
from pathlib import Path

from lavibridge.core.errors import DataError
from lavibridge.data.pictures.rejected import RejectedPictures

_LONGEST_LINE = 16 * 2**20
"""Maximum bytes in one line of a list."""


def read_text_lines(path: Path, rejected: RejectedPictures) -> Iterator[tuple[int, str]]:
    """Yield number and text of every non-blank line, without its line end and byte-order mark.

    Only LF and CRLF end a line; lines that are not UTF-8 go to `rejected`.
    """
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(_LONGEST_LINE):
            number += 1
            if len(raw) == _LONGEST_LINE and not raw.endswith(b"\n"):
                while raw and not raw.endswith(b"\n"):  # the rest of it
                    raw = file.readline(_LONGEST_LINE)
                rejected.add(path.name, f"the line has more than {_LONGEST_LINE:,} bytes", number)
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


def parse_caption_text(data: bytes, name: str) -> tuple[str, ...]:
    """Return the captions in a text file's bytes, one per line. Raises DataError if there is none."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"its caption file {name} is not UTF-8") from error
    captions = tuple(line.strip() for line in text.split("\n") if line.strip())
    if not captions:
        raise DataError(f"its caption file {name} is empty")
    return captions


def shorten_text(text: str) -> str:
    """Return at most sixty characters of a line, for a message."""
    return text if len(text) <= 60 else text[:57] + "..."
