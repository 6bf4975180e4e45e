"""Pairs from the published list format: one line per caption, `image_path<TAB>caption`.

    pictures/0001.jpg<TAB>a red cube on a blue table
    pictures/0001.jpg<TAB>a table with a cube        several captions of one picture: each visit draws one

UTF-8 with or without a byte-order mark, lines ended by LF or CRLF. Paths start from `root` (by default the
list's own folder) and may not leave it. A first line that reads `image_path`, `path`, ... is a header.
Source: LaVi-Bridge's training data (Zhao et al. 2024, arXiv 2403.07860).
"""

from collections.abc import Iterator
from pathlib import Path

from lavibridge.core.log import console
from lavibridge.data.pictures.columns import IMAGE_COLUMNS
from lavibridge.data.pictures.files import ListedImage, ListedPictureFiles
from lavibridge.data.pictures.rejected import RejectedPictures
from lavibridge.data.pictures.text import read_text_lines, shorten_text


class Tsv(ListedPictureFiles):
    """Pictures and captions named by a tab-separated list."""

    class Config(ListedPictureFiles.Config):
        """Settings of `data.kind: tsv`; `path` is the list."""

    def pairs(self, path: Path, rejected: RejectedPictures) -> Iterator[ListedImage]:
        more_columns = 0
        for number, line in read_text_lines(path, rejected):
            name, *columns = line.split("\t")
            name = name.strip()
            if number == 1 and name.lower() in IMAGE_COLUMNS:
                continue
            if not columns:
                reason = f"no tab in {shorten_text(line)!r}; write image_path<TAB>caption"
                rejected.add(path.name, reason, number)
                continue
            more_columns += len(columns) > 1
            yield number, name, columns[:1]
        if more_columns:
            note = f"note: {path}: {more_columns:,} lines have more than two columns; the others are ignored"
            console.print(note, soft_wrap=True)
