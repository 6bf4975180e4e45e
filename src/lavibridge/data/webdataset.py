"""Pairs from tar archives, read in place: nothing is unpacked, a picture is found by its offset.

    shard-000.tar    0001.jpg  0001.txt     the captions, one a line
                     0002.png  0002.json    {"caption": "..."}, or a list of them

Members of one archive belong together when their names agree up to the first dot of the last part; that is
the WebDataset convention (Aizman et al. 2020, arXiv 2001.01858). An archive's headers are walked through
once; later a picture costs one read. Compressed archives cannot be read in place and are refused.
"""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lavibridge.core.config import Changeable
from lavibridge.core.errors import DataError
from lavibridge.data.pictures.archives import Held
from lavibridge.data.pictures.columns import CAPTION, choose, texts
from lavibridge.data.pictures.paths import SUFFIXES, UNREAD, Place, check_name
from lavibridge.data.pictures.read import check_length
from lavibridge.data.pictures.rejected import Rejected
from lavibridge.data.pictures.table import Entry
from lavibridge.data.pictures.text import captions_in
from lavibridge.data.pictures.walk import is_hidden

LONGEST_TEXT = 16 * 2**20


@dataclass
class Group:
    """Members of one name: where the picture lies, and what the texts beside it say."""

    picture: tarfile.TarInfo | None = None
    unread: list[tarfile.TarInfo] = field(default_factory=list)
    """Pictures of kinds that are turned away, unless their bytes are of another."""
    captions: list[str] = field(default_factory=list)
    fault: str | None = None


class WebDataset(Held):
    """Pictures and captions in one tar archive or a folder of them."""

    class Config(Held.Config):
        """Settings of `data.kind: webdataset`."""

        path: Changeable[Place]
        """A .tar file, or a folder with such files in it and below it."""
        caption: str | None = None
        """Key of the caption in .json members; found by its usual names (caption, text) when not given."""

    config: "WebDataset.Config"
    suffix = ".tar"
    holders = "archives"

    def listing(self, rejected: Rejected) -> list[Entry]:
        found: list[Entry] = []
        for name in self.files(rejected):
            groups: dict[str, Group] = {}
            for member, file in self._members(name, rejected):
                stem, suffix = split(member.name)
                self._sort(groups.setdefault(stem, Group()), member, suffix, file)
            found.extend(self._entries(name, groups, rejected))
        return found

    def _members(self, name: str, rejected: Rejected) -> Iterator[tuple[tarfile.TarInfo, Any]]:
        """The files of an archive, in their order; what is none, or lies outside, goes to `rejected`."""
        path = self.folder / name
        last = "its beginning"
        try:
            with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
                for member in archive:
                    last = member.name
                    if member.isdir() or is_hidden(member.name):
                        continue
                    try:
                        check_name(member.name, Path(name))
                        if not member.isreg() or member.issparse():
                            raise DataError("it is a link or a device, no file")
                        if member.offset_data + member.size > path.stat().st_size:
                            raise DataError("the archive ends within it")
                    except DataError as error:
                        rejected.add(f"{name}/{member.name}", str(error))
                    else:
                        yield member, file
        # Broken headers are answered with almost any exception; whichever it is, the archive ends there.
        except Exception as error:
            rejected.add(name, f"no tar archive that can be read in place after {last}: {error}")

    def _sort(self, group: Group, member: tarfile.TarInfo, suffix: str, file: Any) -> None:
        """Put a member to its group."""
        if suffix in SUFFIXES:
            if group.picture is not None:
                group.fault = "there are several pictures of this name"
            group.picture = group.picture or member
        elif suffix in UNREAD:
            group.unread.append(member)
        elif suffix in (".txt", ".json"):
            try:
                group.captions += self._texts(member, suffix, file)
            except DataError as error:
                group.fault = str(error)

    def _texts(self, member: tarfile.TarInfo, suffix: str, file: Any) -> tuple[str, ...]:
        if member.size > LONGEST_TEXT:
            raise DataError(f"its {suffix} file has {member.size:,} bytes")
        place = file.tell()
        file.seek(member.offset_data)
        data = file.read(member.size)
        file.seek(place)
        if suffix == ".txt":
            return captions_in(data, member.name)
        try:
            row = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{member.name} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"{member.name} is no JSON object")
        return tuple(texts(row.get(choose(self.config.caption, list(row), CAPTION, "caption", member.name))))

    def _entries(self, name: str, groups: dict[str, Group], rejected: Rejected) -> Iterator[Entry]:
        for stem, group in groups.items():
            fault = group.fault
            if group.picture is None and group.unread:
                group.picture = group.unread.pop(0)
            for member in group.unread:
                rejected.note(f"{name}/{member.name}", "it is another picture of a name that has one")
            if group.picture is None:
                rejected.add(f"{name}/{stem}", fault or f"it has no picture ({', '.join(sorted(SUFFIXES))})")
                continue
            if not group.captions:
                fault = fault or "it has no caption (.txt or .json)"
            if fault is not None:
                rejected.add(f"{name}/{group.picture.name}", fault)
                continue
            yield Entry(
                name=f"{name}/{group.picture.name}",
                captions=tuple(group.captions),
                holder=name,
                first=group.picture.offset_data,
                second=group.picture.size,
            )

    def read(self, entry: Entry) -> bytes:
        check_length(entry.second)
        try:
            with (self.folder / entry.holder).open("rb") as file:
                file.seek(entry.first)
                return file.read(entry.second)
        except OSError as error:
            raise DataError(
                f"the archive {entry.holder} cannot be read: {error.strerror or error}"
            ) from error


def split(name: str) -> tuple[str, str]:
    """A member's name up to the first dot of its last part, and its last suffix in small letters."""
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition('.')[0]}", Path(last).suffix.lower()
