"""Pairs from the published list format: one line per caption, `image_path<TAB>caption`.

    pictures/0001.jpg<TAB>a red cube on a blue table
    pictures/0001.jpg<TAB>a table with a cube        several captions for one picture: each visit draws one

UTF-8 with or without a byte-order mark, lines ended by LF or CRLF. Paths are read below `root` (the list's
own folder unless given) and never outside it. A first line that reads `image_path`, `path`, ... is a header.
Source: LaVi-Bridge's training data (Zhao et al. 2024, arXiv 2403.07860).
"""

from collections.abc import Iterator
from pathlib import Path

from lavibridge.core.errors import DataError
from lavibridge.core.log import console
from lavibridge.data.base import Sample
from lavibridge.data.pictures.files import PictureFiles, Place, check_name
from lavibridge.data.pictures.rejected import Rejected

HEADERS = frozenset({"image_path", "image", "path", "file", "file_name", "filename", "filepath"})


class Tsv(PictureFiles):
    """Pictures and captions named by a tab-separated list."""

    class Config(PictureFiles.Config):
        """Settings of `data.kind: tsv`; `path` is the list."""

        root: Place | None = None
        """Folder that the paths in the list start from; the list's own folder when not given."""

    def __init__(self, config: "Tsv.Config", rejected: Rejected) -> None:
        super().__init__(config, rejected)
        root = config.root or config.path.parent
        captions: dict[str, list[str]] = {}
        for number, name, caption in read_pairs(config.path):
            try:
                check_name(name, root)
            except DataError as error:
                raise DataError(f"{config.path}, line {number}: {error}") from error
            if caption:
                captions.setdefault(name, []).append(caption)
            else:
                rejected.add(name, "its caption is empty", line=number)
        if not captions and not rejected.entries:
            raise DataError(f"{config.path} holds no pairs; each line should be image_path<TAB>caption")
        found = [Sample(name=name, captions=tuple(texts)) for name, texts in captions.items()]
        self.scan(root, found, config.max_rejected, str(config.path))


def read_pairs(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line number, image path, caption) of every line; DataError names a line that is not a pair."""
    if path.is_dir():
        raise DataError(f"{path} is a folder; data.kind: folder reads folders, data.kind: tsv reads a list")
    if not path.is_file():
        raise DataError(f"there is no file {path} (data.path)")
    more_columns = 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            line = decode_line(path, number, raw)
            if not line.strip():
                continue
            name, *columns = line.split("\t")
            name = name.strip()
            if number == 1 and name.lower() in HEADERS:
                continue
            if not columns:
                raise DataError(
                    f"{path}, line {number}: no tab in {shorten(line)!r}; write image_path<TAB>caption"
                )
            if not name:
                raise DataError(f"{path}, line {number}: the image path before the tab is empty")
            more_columns += len(columns) > 1
            yield number, name, columns[0].strip()
    if more_columns:
        note = f"{path}: {more_columns:,} lines have more than two columns; the rest is not read"
        console.print(note, markup=False, soft_wrap=True)


def decode_line(path: Path, number: int, raw: bytes) -> str:
    """One line as text, without its end and without a byte-order mark."""
    if number == 1:
        raw = raw.removeprefix(b"\xef\xbb\xbf")
    try:
        return raw.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, line {number}: not UTF-8 ({error.reason}); save the list as UTF-8"
        ) from error


def shorten(text: str) -> str:
    """At most sixty characters of a line, for a message."""
    return text if len(text) <= 60 else text[:57] + "..."
