"""Reads a whole cache folder to find damaged shards and partial files.

Repair computes no entries: it copies the intact entries of a damaged shard into a new one and removes the old
shard. Training computes lost entries again when it needs them.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lavibridge.core.errors import CacheError
from lavibridge.core.log import progress_bar
from lavibridge.training.cache.shard import SUFFIX, Entry, Shard, write_shard

ABANDONED_SECONDS = 3600.0
"""Seconds without a change after which a partial file counts as left by a killed process."""


@dataclass(frozen=True, kw_only=True)
class ShardCheck:
    """The result of checking one file of a cache folder."""

    path: Path
    entries: int = 0
    damaged: int = 0
    fault: str | None = None
    """A description of the fault; None if the file is intact."""


def verify(folder: Path) -> list[ShardCheck]:
    """Read every shard below a folder. Raises CacheError if there are none."""
    if not folder.is_dir():
        raise CacheError(f"there is no folder {folder}: give the folder of training.cache.folder")
    shards = sorted(folder.rglob(f"*{SUFFIX}"))
    findings = [
        ShardCheck(path=path, fault="incomplete: a process was killed as it wrote this file")
        for path in _abandoned(folder)
    ]
    if not shards and not findings:
        raise CacheError(f"{folder} holds no shards: choose a cache folder, or fill it with `lavi cache`")
    with progress_bar("MB") as bar:
        task = bar.add_task("reading", total=sum(_megabytes(path) for path in shards), status="")
        for path in shards:
            findings.append(_look_at(path))
            bar.advance(task, _megabytes(path))
    return findings


def _look_at(path: Path) -> ShardCheck:
    """Read one shard and check all its entries."""
    try:
        entries = list(_sound(Shard(path)))
    except CacheError as error:
        return ShardCheck(path=path, fault=str(error))
    damaged = sum(not is_sound for is_sound in entries)
    fault = f"{path} is damaged: {damaged:,} of {len(entries):,} entries do not match their checksum"
    return ShardCheck(path=path, entries=len(entries), damaged=damaged, fault=fault if damaged else None)


def repair(finding: ShardCheck) -> int:
    """Remove a damaged file, but keep its intact entries in a new one; returns their number."""
    kept: dict[bytes, Entry] = {}
    if finding.entries > finding.damaged:
        kept = {key: entry for key, entry in Shard(finding.path).whole() if entry is not None}
        write_shard(finding.path.with_name(f"{finding.path.stem}r{SUFFIX}"), kept)
    finding.path.unlink()
    return len(kept)


def _abandoned(folder: Path) -> list[Path]:
    """Partial files of killed processes."""
    before = time.time() - ABANDONED_SECONDS
    return sorted(path for path in folder.rglob(f".*{SUFFIX}.*.partial") if path.stat().st_mtime < before)


def _sound(shard: Shard) -> Iterator[bool]:
    return (entry is not None for _, entry in shard.whole())


def _megabytes(path: Path) -> int:
    return max(1, round(path.stat().st_size / 1e6))
