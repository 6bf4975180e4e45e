"""Reads every picture once, in many threads, and builds the index.

    listing -> known and unchanged? -> the previous check
                       otherwise    -> bytes -> decode -> height, width, hash, or the reason  -> journal
    all checks in the listing's order -> table of the usable, list of the rejected -> manifest, last

Threads are enough: Pillow's decoders and the hash release the interpreter lock. An interrupted check leaves
its journal, and the next one continues from there. A file counts as unchanged while its size and modification
time stay the same. Rejected pictures are always read again, because someone may have repaired them.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa

from lavibridge.core.errors import DataError
from lavibridge.core.log import progress_bar
from lavibridge.data.pictures.decoding import DECODING_VERSION, decode_picture_with_warning
from lavibridge.data.pictures.image_table import (
    IMAGE_TABLE_SCHEMA,
    ImageCheck,
    ImageTable,
    ImageTableEntry,
    image_table_rows,
    journal_entry,
)
from lavibridge.data.pictures.index import ImageIndex
from lavibridge.data.pictures.rejected import RejectedPictures, write_rejections

_CHUNK = 512
_LONGEST_CAPTION = 100_000
"""Characters; a longer caption is a mistake, and every visit would tokenise it."""
GetStamp = Callable[[ImageTableEntry], tuple[int, int]]
ReadBytes = Callable[[ImageTableEntry], bytes]


class _PreviousChecks:
    """Results of earlier checks, by name, location and stamp."""

    def __init__(self, tables: Sequence[ImageTable]) -> None:
        self.tables = tables
        self.rows = {
            name: (number, row)
            for number, table in enumerate(tables)
            for row, name in enumerate(table.names())
        }

    def find(self, entry: ImageTableEntry, stamp: tuple[int, int]) -> ImageCheck | None:
        """Return the earlier check of a picture if the picture is unchanged."""
        place = self.rows.get(entry.name)
        if place is None:
            return None
        table, row = self.tables[place[0]], place[1]
        then, before = table.image_check(row), table.entry(row)
        same_place = (before.container, before.first, before.second) == (
            entry.container,
            entry.first,
            entry.second,
        )
        return then if same_place and then.stamp == stamp else None


def _check_image(
    entry: ImageTableEntry, stamp: GetStamp, read: ReadBytes, known: _PreviousChecks
) -> tuple[ImageCheck, bool]:
    """Check one picture; also return whether the check is new."""
    found = (0, 0)
    try:
        _check_text(entry)
        found = stamp(entry)
        before = known.find(entry, found)
        if before is not None:
            return before, False
        data = read(entry)
        image, warning = decode_picture_with_warning(data)
    except DataError as error:
        return ImageCheck(stamp=found, reason=str(error)), True
    digest = hashlib.sha256(data).digest()
    return ImageCheck(stamp=found, size=(image.height, image.width), digest=digest, warning=warning), True


def _check_text(entry: ImageTableEntry) -> None:
    """Raise DataError for captions that are too long or not text, and for text that UTF-8 cannot encode."""
    longest = max(map(len, entry.captions))
    if longest > _LONGEST_CAPTION:
        raise DataError(f"a caption has {longest:,} characters; at most {_LONGEST_CAPTION:,} are read")
    try:
        "".join((entry.name, *entry.captions)).encode()
    except UnicodeEncodeError as error:
        raise DataError("its name or caption is not valid Unicode: it holds a lone surrogate") from error
    if any("\0" in caption for caption in entry.captions):
        raise DataError("its caption holds NUL bytes, as text in UTF-16 does: save it as UTF-8")


def build_index(
    index: ImageIndex,
    entries: Sequence[ImageTableEntry],
    stamps: dict[str, Any],
    stamp: GetStamp,
    read: ReadBytes,
    rejected: RejectedPictures,
) -> None:
    """Build the index of these entries; adds rejections to `rejected`, which has those of the listing."""
    index.folder.mkdir(parents=True, exist_ok=True)
    known = _PreviousChecks(index.known())
    digest = hashlib.sha256(f"pixels {DECODING_VERSION}\n".encode())
    count = 0
    partial = index.folder / "partial.arrow"
    journal = index.folder / f"journal-{len(index.journals()):06d}.checks"
    with ExitStack() as stack:
        bar = stack.enter_context(progress_bar("pictures"))
        pool = stack.enter_context(ThreadPoolExecutor(max_workers=os.cpu_count() or 1))
        table = stack.enter_context(
            pa.ipc.new_file(stack.enter_context(pa.OSFile(str(partial), "wb")), IMAGE_TABLE_SCHEMA)
        )
        notes = stack.enter_context(CheckJournal(journal))
        task = bar.add_task("checking", total=len(entries), status="")
        for start in range(0, len(entries), _CHUNK):
            chunk = entries[start : start + _CHUNK]
            checks = list(pool.map(lambda entry: _check_image(entry, stamp, read, known), chunk))
            usable = []
            for entry, (check, is_new) in zip(chunk, checks, strict=True):
                if check.reason is not None:
                    rejected.add(entry.name, check.reason, entry.line)
                    continue
                if check.warning is not None:
                    rejected.warn(entry.name, check.warning)
                usable.append((entry, check, is_new))
                digest.update("\0".join((entry.name, *entry.captions)).encode() + b"\n" + check.digest)
            table.write_batch(image_table_rows([each[0] for each in usable], [each[1] for each in usable]))
            notes.add([each for each in usable if each[2]])
            count += len(usable)
            bar.update(task, advance=len(chunk), status=f"{len(rejected.entries):,} rejected")
    write_rejections(index.rejected, rejected.all)
    final = index.folder / f"pictures-{digest.hexdigest()[:16]}.arrow"
    _commit_file(partial, final)
    index.finish(final, stamps, count, f"{count} pictures, {digest.hexdigest()[:16]}")


class CheckJournal:
    """A context manager that writes new checks to disk, chunk by chunk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> "CheckJournal":
        self.file = open(self.path, "wb")
        return self

    def add(self, checked: Sequence[tuple[ImageTableEntry, ImageCheck, bool]]) -> None:
        """Write some checks, so that they outlive this process."""
        if checked:
            rows = image_table_rows([each[0] for each in checked], [each[1] for each in checked])
            self.file.write(journal_entry(rows))
            self.file.flush()

    def __exit__(self, *error: object) -> None:
        self.file.close()


def _commit_file(partial: Path, final: Path) -> None:
    """Sync a written file to disk, then rename it into place."""
    with open(partial, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(partial, final)


def group_captions(pairs: Iterator[tuple[int | None, str, Sequence[str]]]) -> list[ImageTableEntry]:
    """Group (line, name, captions) into one entry per name, in the order of their first lines."""
    captions: dict[str, list[str]] = {}
    lines: dict[str, int | None] = {}
    for line, name, texts in pairs:
        captions.setdefault(name, []).extend(texts)
        lines.setdefault(name, line)
    return [
        ImageTableEntry(name=name, captions=tuple(texts), line=lines[name])
        for name, texts in captions.items()
    ]
