"""Captions without pictures, one per line of a UTF-8 text file, for alignment.

Blank lines are skipped. Lines that are not UTF-8 are rejected, counted and listed.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Never

from pydantic import AfterValidator

from lavibridge.core.errors import DataError
from lavibridge.core.log import console
from lavibridge.core.paths import expand_path
from lavibridge.data.base import Dataset, Sample
from lavibridge.data.pictures.rejected import RejectedPictures
from lavibridge.data.pictures.text import read_text_lines


class Captions(Dataset):
    """The lines of a text file."""

    class Config(Dataset.Config):
        """Settings of `data.kind: captions`."""

        path: Annotated[Path, AfterValidator(lambda path: expand_path(path).absolute())]
        """The text file, one caption per line."""

    config: Config
    has_pictures = False

    def __init__(self, config: "Captions.Config", rejected: RejectedPictures) -> None:
        super().__init__(config, rejected)
        if not config.path.is_file():
            raise DataError(f"data.path: there is no file {config.path}")
        try:
            self.lines = [(number, line.strip()) for number, line in read_text_lines(config.path, rejected)]
        except OSError as error:
            raise DataError(f"data.path: {config.path} cannot be read: {error.strerror}") from error
        if rejected.entries:
            console.print(f"note: {config.path}: rejected {len(rejected.entries):,} lines", soft_wrap=True)
        if not self.lines:
            raise DataError(f"{config.path} has no captions: write one per line, as UTF-8")

    def __len__(self) -> int:
        return len(self.lines)

    def sample(self, index: int) -> Sample:
        number, caption = self.lines[index]
        return Sample(name=f"line-{number:06d}", captions=(caption,))

    def picture(self, index: int, size: tuple[int, int]) -> Never:
        raise self._no_pictures()

    def sizes(self) -> Never:
        raise self._no_pictures()

    def content(self, index: int) -> Never:
        raise self._no_pictures()

    def _no_pictures(self) -> DataError:
        return DataError(
            f"{self.config.path} has captions but no pictures: use it for alignment (`lavi align`), or "
            "choose data with pictures"
        )

    def fingerprint(self) -> str:
        """Combine the number of captions and a hash of all of them."""
        content = hashlib.sha256("\n".join(caption for _, caption in self.lines).encode())
        return f"{len(self)} captions, {content.hexdigest()[:16]}"
