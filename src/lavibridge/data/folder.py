"""Pairs from a folder of pictures, each with a text file of the same name beside it.

cat.jpg   cat.txt      the text file holds the captions, one a line; each visit draws one of them
more/dog.png   more/dog.txt      sub-folders are read too
"""

from pathlib import Path

from lavibridge.core.errors import DataError
from lavibridge.data.base import Sample
from lavibridge.data.pictures.files import PictureFiles
from lavibridge.data.pictures.rejected import Rejected

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})


class Folder(PictureFiles):
    """Every picture below a folder that has a caption file."""

    class Config(PictureFiles.Config):
        """Settings of `data.kind: folder`; `path` is the folder."""

    def __init__(self, config: "Folder.Config", rejected: Rejected) -> None:
        super().__init__(config, rejected)
        root = config.path
        if root.is_file():
            raise DataError(f"{root} is a file; data.kind: tsv reads a list, data.kind: folder reads folders")
        if not root.is_dir():
            raise DataError(f"there is no folder {root} (data.path)")
        found: list[Sample] = []
        # Sorted by text: the order must not depend on the file system.
        for path in sorted(root.rglob("*"), key=lambda path: path.relative_to(root).as_posix()):
            if path.suffix.lower() not in SUFFIXES or not path.is_file():
                continue
            name = path.relative_to(root).as_posix()
            try:
                found.append(Sample(name=name, captions=read_captions(path.with_suffix(".txt"))))
            except DataError as error:
                rejected.add(name, str(error))
        if not found and not rejected.entries:
            raise DataError(f"{root} holds no pictures ({', '.join(sorted(SUFFIXES))})")
        self.scan(root, found, config.max_rejected, str(root))


def read_captions(path: Path) -> tuple[str, ...]:
    """The captions in a text file, one a line; DataError when there is none."""
    if not path.is_file():
        raise DataError(f"it has no caption file {path.name}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"its caption file {path.name} is not UTF-8") from error
    captions = tuple(line.strip() for line in text.split("\n") if line.strip())
    if not captions:
        raise DataError(f"its caption file {path.name} is empty")
    return captions
