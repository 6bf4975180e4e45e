"""Pairs from tar archives, read in place by their offset, without unpacking.

    shard-000.tar    0001.jpg  0001.txt     the captions, one per line
                     0002.png  0002.json    {"caption": "..."}, or a list of captions

Members of one archive form a sample if their names agree up to the first dot of the last path component; this
is the WebDataset convention (Aizman et al. 2020, arXiv 2001.01858). The check reads an archive's headers
once; later a picture costs one read. Compressed archives cannot be read in place and are rejected.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from lavibridge.core.config import Changeable
from lavibridge.core.errors import DataError, LaviError
from lavibridge.core.files import parse_json
from lavibridge.data.pictures.archives import ArchivedPictures
from lavibridge.data.pictures.columns import CAPTION_COLUMNS, captions_of_column_value, choose_column
from lavibridge.data.pictures.decoding import check_picture_bytes
from lavibridge.data.pictures.image_table import ImageTableEntry
from lavibridge.data.pictures.paths import (
    IMAGE_SUFFIXES,
    UNSUPPORTED_SUFFIXES,
    AbsolutePath,
    check_picture_path,
)
from lavibridge.data.pictures.rejected import RejectedPictures
from lavibridge.data.pictures.text import parse_caption_text
from lavibridge.data.pictures.walk import is_hidden

_LONGEST_TEXT, _LONGEST_HEADER = 16 * 2**20, 2**20
"""Bytes of a text member, and of the names and records that describe a member."""


@dataclass
class _ArchiveSample:
    """The members of one sample: its picture and its captions."""

    picture: tarfile.TarInfo | None = None
    unread: list[tarfile.TarInfo] = field(default_factory=list)
    """Pictures whose suffix is unsupported; their bytes may still be of a supported format."""
    captions: list[str] = field(default_factory=list)
    fault: str | None = None


class WebDataset(ArchivedPictures):
    """Pictures and captions in one tar archive or a folder of them."""

    class Config(ArchivedPictures.Config):
        """Settings of `data.kind: webdataset`."""

        path: Changeable[AbsolutePath]
        """A .tar file, or a folder that is searched for such files recursively."""
        caption: str | None = None
        """Key of the caption in .json members; by default a usual name (caption, text)."""

    config: "WebDataset.Config"
    suffix = ".tar"
    plural = "archives"

    def listing(self, rejected: RejectedPictures) -> list[ImageTableEntry]:
        found: list[ImageTableEntry] = []
        for name in self.files(rejected):
            groups: dict[str, _ArchiveSample] = {}
            for member, file in self._members(name, rejected):
                stem, suffix = _split_member_name(member.name)
                self._sort(groups.setdefault(stem, _ArchiveSample()), member, suffix, file)
            found.extend(self._entries(name, groups, rejected))
        return found

    def _members(self, name: str, rejected: RejectedPictures) -> Iterator[tuple[tarfile.TarInfo, Any]]:
        """Yield the files of an archive in order; anything else, or outside it, goes to `rejected`."""
        path = self.folder / name
        last = "its beginning"
        try:
            with (
                path.open("rb") as file,
                tarfile.open(fileobj=cast(Any, _HeaderReader(file)), mode="r:") as archive,
            ):
                for member in archive:
                    last = member.name
                    if member.isdir() or is_hidden(member.name):
                        continue
                    try:
                        check_picture_path(member.name, Path(name))
                        if not member.isreg() or member.issparse():
                            raise DataError("it is a link or a device, not a file")
                        if member.offset_data + member.size > path.stat().st_size:
                            raise DataError("the archive ends within it")
                    except DataError as error:
                        rejected.add(f"{name}/{member.name}", str(error))
                    else:
                        yield member, file
        # tarfile raises almost any exception for a broken header; in every case the archive ends there.
        except Exception as error:
            rejected.add(name, f"not a tar archive that can be read in place, after {last}: {error}")

    def _sort(self, group: _ArchiveSample, member: tarfile.TarInfo, suffix: str, file: Any) -> None:
        """Add a member to its sample."""
        if suffix in IMAGE_SUFFIXES:
            if group.picture is not None:
                group.fault = "there are several pictures of this name"
            group.picture = group.picture or member
        elif suffix in UNSUPPORTED_SUFFIXES:
            group.unread.append(member)
        elif suffix in (".txt", ".json"):
            try:
                group.captions += self._texts(member, suffix, file)
            except DataError as error:
                group.fault = str(error)

    def _texts(self, member: tarfile.TarInfo, suffix: str, file: Any) -> tuple[str, ...]:
        if member.size > _LONGEST_TEXT:
            raise DataError(f"its {suffix} file has {member.size:,} bytes")
        place = file.tell()
        file.seek(member.offset_data)
        data = file.read(member.size)
        file.seek(place)
        if suffix == ".txt":
            return parse_caption_text(data, member.name)
        try:
            row = parse_json(data.decode("utf-8"), member.name)
        except (LaviError, UnicodeDecodeError) as error:
            raise DataError(str(error)) from None
        if not isinstance(row, dict):
            raise DataError(f"{member.name} is not a JSON object")
        return tuple(
            captions_of_column_value(
                row.get(
                    choose_column(self.config.caption, list(row), CAPTION_COLUMNS, "caption", member.name)
                )
            )
        )

    def _entries(
        self, name: str, groups: dict[str, _ArchiveSample], rejected: RejectedPictures
    ) -> Iterator[ImageTableEntry]:
        for stem, group in groups.items():
            fault = group.fault
            if group.picture is None and group.unread:
                group.picture = group.unread.pop(0)
            for member in group.unread:
                rejected.warn(f"{name}/{member.name}", "its sample already has a picture")
            if group.picture is None:
                rejected.add(
                    f"{name}/{stem}", fault or f"it has no picture ({', '.join(sorted(IMAGE_SUFFIXES))})"
                )
                continue
            if not group.captions:
                fault = fault or "it has no caption (.txt or .json)"
            if fault is not None:
                rejected.add(f"{name}/{group.picture.name}", fault)
                continue
            yield ImageTableEntry(
                name=f"{name}/{group.picture.name}",
                captions=tuple(group.captions),
                container=name,
                first=group.picture.offset_data,
                second=group.picture.size,
            )

    def read(self, entry: ImageTableEntry) -> bytes:
        check_picture_bytes(entry.second)
        try:
            with (self.folder / entry.container).open("rb") as file:
                file.seek(entry.first)
                return file.read(entry.second)
        except OSError as error:
            raise DataError(
                f"the archive {entry.container} cannot be read: {error.strerror or error}"
            ) from error


class _HeaderReader:
    """A file in which tarfile reads headers, with a bound: a name may state any number of bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def read(self, size: int) -> bytes:
        """Read a part of a header. Raises DataError if it is too long."""
        if size > _LONGEST_HEADER:
            raise DataError(f"a header states {size:,} bytes, and at most {_LONGEST_HEADER:,} are read")
        return self.file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def _split_member_name(name: str) -> tuple[str, str]:
    """Split a member's name at the first dot of its last component; return the stem and the last suffix in
    lower case."""
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition('.')[0]}", Path(last).suffix.lower()
