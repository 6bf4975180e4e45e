"""Read every picture once, many at a time, and write down what was found.

    listing -> known and unchanged? -> verdict as before
                       else         -> bytes -> decode -> height, width, hash, or why not     -> journal
    all verdicts in the listing's order -> table of the usable, list of the rejected -> manifest, last

Threads are enough: Pillow's decoders and the hash let others run meanwhile. A check that is broken off leaves
its journal, and the next one goes on from there. A file is the same while its size and its time of change
are; rejected pictures are always read again, as someone may have mended them.
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
from lavibridge.core.log import progress
from lavibridge.data.pictures.index import Index
from lavibridge.data.pictures.read import VERSION, examine
from lavibridge.data.pictures.rejected import Rejected, write_rejections
from lavibridge.data.pictures.table import SCHEMA, Entry, Table, Verdict, batch_of

CHUNK = 512
LONGEST_CAPTION = 100_000
"""Characters; a longer one is a mistake, and would be tokenised at every visit."""
Stamp = Callable[[Entry], tuple[int, int]]
Read = Callable[[Entry], bytes]


class Known:
    """Verdicts of earlier checks, by name, place and stamp."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self.tables = tables
        self.rows = {
            name: (number, row)
            for number, table in enumerate(tables)
            for row, name in enumerate(table.names())
        }

    def verdict(self, entry: Entry, stamp: tuple[int, int]) -> Verdict | None:
        """What was found before, if the picture is still that one."""
        place = self.rows.get(entry.name)
        if place is None:
            return None
        table, row = self.tables[place[0]], place[1]
        then, before = table.verdict(row), table.entry(row)
        same_place = (before.holder, before.first, before.second) == (entry.holder, entry.first, entry.second)
        return then if same_place and then.stamp == stamp else None


def judge(entry: Entry, stamp: Stamp, read: Read, known: Known) -> tuple[Verdict, bool]:
    """The verdict on one picture, and whether it is new."""
    found = (0, 0)
    try:
        check_text(entry)
        found = stamp(entry)
        before = known.verdict(entry, found)
        if before is not None:
            return before, False
        data = read(entry)
        image, note = examine(data)
    except DataError as error:
        return Verdict(stamp=found, reason=str(error)), True
    digest = hashlib.sha256(data).digest()
    return Verdict(stamp=found, size=(image.height, image.width), digest=digest, note=note), True


def check_text(entry: Entry) -> None:
    """DataError for captions that are too long or no text, and for text that UTF-8 cannot hold."""
    longest = max(map(len, entry.captions))
    if longest > LONGEST_CAPTION:
        raise DataError(f"a caption has {longest:,} characters; at most {LONGEST_CAPTION:,} are read")
    try:
        "".join((entry.name, *entry.captions)).encode()
    except UnicodeEncodeError as error:
        raise DataError("its name or caption is no text: it holds half a character") from error
    if any("\0" in caption for caption in entry.captions):
        raise DataError("its caption holds NUL bytes, as text in UTF-16 does: save it as UTF-8")


def check(
    index: Index,
    entries: Sequence[Entry],
    stamps: dict[str, Any],
    stamp: Stamp,
    read: Read,
    rejected: Rejected,
) -> None:
    """Make the index of these entries; `rejected` holds what the listing turned away and takes the rest."""
    index.folder.mkdir(parents=True, exist_ok=True)
    known = Known(index.known())
    digest = hashlib.sha256(f"pixels {VERSION}\n".encode())
    count = 0
    partial = index.folder / "partial.arrow"
    journal = index.folder / f"journal-{len(index.journals()):06d}.arrows"
    with ExitStack() as stack:
        bar = stack.enter_context(progress("pictures"))
        pool = stack.enter_context(ThreadPoolExecutor(max_workers=os.cpu_count() or 1))
        table = stack.enter_context(
            pa.ipc.new_file(stack.enter_context(pa.OSFile(str(partial), "wb")), SCHEMA)
        )
        notes = stack.enter_context(Journal(journal))
        task = bar.add_task("checking", total=len(entries), status="")
        for start in range(0, len(entries), CHUNK):
            chunk = entries[start : start + CHUNK]
            verdicts = list(pool.map(lambda entry: judge(entry, stamp, read, known), chunk))
            usable = []
            for entry, (verdict, is_new) in zip(chunk, verdicts, strict=True):
                if verdict.reason is not None:
                    rejected.add(entry.name, verdict.reason, entry.line)
                    continue
                if verdict.note is not None:
                    rejected.note(entry.name, verdict.note)
                usable.append((entry, verdict, is_new))
                digest.update("\0".join((entry.name, *entry.captions)).encode() + b"\n" + verdict.digest)
            table.write_batch(batch_of([each[0] for each in usable], [each[1] for each in usable]))
            notes.add([each for each in usable if each[2]])
            count += len(usable)
            bar.update(task, advance=len(chunk), status=f"{len(rejected.entries):,} rejected")
    write_rejections(index.rejected, rejected.all)
    final = index.folder / f"pictures-{digest.hexdigest()[:16]}.arrow"
    settle(partial, final)
    index.finish(final, stamps, count, f"{count} pictures, {digest.hexdigest()[:16]}")


class Journal:
    """New verdicts, on disk chunk by chunk; a context."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> "Journal":
        self.file = open(self.path, "wb")
        self.writer = pa.ipc.new_stream(self.file, SCHEMA)
        return self

    def add(self, judged: Sequence[tuple[Entry, Verdict, bool]]) -> None:
        """Write some verdicts, so that they outlive this process."""
        if judged:
            self.writer.write_batch(batch_of([each[0] for each in judged], [each[1] for each in judged]))
            self.file.flush()

    def __exit__(self, *error: object) -> None:
        self.writer.close()
        self.file.close()


def settle(partial: Path, final: Path) -> None:
    """Bring a written file to the disk, then to its name."""
    with open(partial, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(partial, final)


def gather(pairs: Iterator[tuple[int | None, str, Sequence[str]]]) -> list[Entry]:
    """Entries from (line, name, captions): one a name, in the order of their first lines."""
    captions: dict[str, list[str]] = {}
    lines: dict[str, int | None] = {}
    for line, name, texts in pairs:
        captions.setdefault(name, []).extend(texts)
        lines.setdefault(name, line)
    return [Entry(name=name, captions=tuple(texts), line=lines[name]) for name, texts in captions.items()]
