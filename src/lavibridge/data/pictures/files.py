"""Datasets whose pictures are files: found once, every one decoded once at the start, then read by index.

Every picture is decoded before training begins, so that a truncated download is found in the first minute
and not after a night, and so that which samples exist (and with them the whole order of training) is settled.
"""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath, PureWindowsPath
from posixpath import normpath
from typing import Annotated

import numpy as np
from jaxtyping import UInt8
from pydantic import AfterValidator, Field

from lavibridge.core.errors import DataError
from lavibridge.core.log import progress
from lavibridge.data.base import Dataset, Sample
from lavibridge.data.pictures.read import fit, read_picture, refuse_bombs
from lavibridge.data.pictures.rejected import Rejected

CHUNK = 1024
Place = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]
"""A path that means the same from any folder: a recipe may be read again from elsewhere."""


def check_name(name: str, root: Path) -> None:
    """DataError for a path that is absolute, climbs out of the root by `..`, or holds a NUL byte."""
    if "\0" in name:
        raise DataError("the path holds a NUL byte")
    # PureWindowsPath too: a list written on Windows may say C:\..., which is a plain file name elsewhere.
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or name.startswith("\\"):
        raise DataError(f"the path {name!r} is absolute; paths are read below the root {root}")
    if normpath(name.replace("\\", "/")).split("/")[0] == "..":
        raise DataError(f"the path {name!r} leads outside the root {root}")


def below(root: Path, name: str) -> Path:
    """The real path of `name`, links followed; DataError where it is not below `root`."""
    check_name(name, root)
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise DataError(f"the path {name!r} leads outside the root {root}, through a link")
    return path


class PictureFiles(Dataset):
    """Base of the kinds that read files: a subclass lists them, this class checks and reads them."""

    class Config(Dataset.Config):
        """Settings of every kind that reads files."""

        path: Place
        """Where the data is."""
        max_rejected: float = Field(default=0.05, ge=0, le=1)
        """Share of the pictures that may be unusable before training refuses to start."""

    def __init__(self, config: "PictureFiles.Config", rejected: Rejected) -> None:
        super().__init__(config, rejected)
        refuse_bombs()
        self.samples: list[Sample] = []

    def scan(self, root: Path, found: Sequence[Sample], limit: float, where: str) -> None:
        """Decode every picture once; keep the good, note the others, stop if those are too many."""
        self.root = root.resolve()
        total = len(found) + len(self.rejected.entries)
        with (
            ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool,
            progress("pictures") as bar,
        ):
            task = bar.add_task("checking", total=len(found), status="")
            for start in range(0, len(found), CHUNK):
                chunk = found[start : start + CHUNK]
                for sample, reason in zip(chunk, pool.map(self.fault, chunk), strict=True):
                    if reason is None:
                        self.samples.append(sample)
                    else:
                        self.rejected.add(sample.name, reason)
                    bar.advance(task)
        self.rejected.close(total, limit, where)

    def fault(self, sample: Sample) -> str | None:
        """Why a picture cannot be used, or None."""
        try:
            read_picture(below(self.root, sample.name))
        except DataError as error:
            return str(error)
        return None

    def __len__(self) -> int:
        return len(self.samples)

    def sample(self, index: int) -> Sample:
        return self.samples[index]

    def picture(self, index: int, size: tuple[int, int]) -> UInt8[np.ndarray, "height width 3"]:
        name = self.samples[index].name
        try:
            return fit(read_picture(below(self.root, name)), size)
        except DataError as error:
            raise DataError(
                f"{self.root / name} was readable at the start and no longer is: {error}"
            ) from error

    def fingerprint(self) -> str:
        """Hash of every name and caption in their order."""
        digest = hashlib.sha256()
        for sample in self.samples:
            digest.update("\0".join((sample.name, *sample.captions)).encode())
            digest.update(b"\n")
        return f"{len(self)} pictures, {digest.hexdigest()[:16]}"
