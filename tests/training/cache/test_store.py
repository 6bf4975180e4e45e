"""A folder of shards survives kills, full disks, damage and company."""

import os
import random
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lavibridge.core.errors import CacheError
from lavibridge.training.cache import store as store_module
from lavibridge.training.cache.backend import DiskBackend
from lavibridge.training.cache.keys import key_digest
from lavibridge.training.cache.shard import Entry, Shard, write_shard
from lavibridge.training.cache.store import Store
from lavibridge.training.cache.verify import repair, verify

SMALL = 2000
"""Bytes of a shard: about four entries."""


def key(number: int) -> bytes:
    return key_digest(str(number))


def entry(number: int) -> Entry:
    return {"moments": torch.full((2, 64), float(number))}


def opened(folder: Path) -> Store:
    return Store(folder, torch.float32, SMALL)


def fill(folder: Path, numbers: range, pause: float = 0.0) -> None:
    store = opened(folder)
    for number in numbers:
        if key(number) not in store:
            store.put(key(number), entry(number))
            if store.is_due:
                store.flush()
            time.sleep(pause)
    store.flush()


def held(folder: Path, numbers: range) -> list[int]:
    """Which of some numbers a folder holds, each as it was put in."""
    store = opened(folder)
    found = {number: store.get(key(number)) for number in numbers}
    assert all(kept is None or torch.equal(kept["moments"], entry(n)["moments"]) for n, kept in found.items())
    return [number for number, kept in found.items() if kept is not None]


def in_child(work: Callable[[], None]) -> int:
    """Do something in a process of its own, which ends without a word to this one."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return child


def status_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_what_is_put_is_there_at_once_and_for_the_next(tmp_path: Path) -> None:
    store = opened(tmp_path)
    assert store.get(key(1)) is None
    store.put(key(1), entry(1))
    assert store.get(key(1)) is not None
    assert not list(tmp_path.glob("*.safetensors"))
    store.flush()
    store.flush()  # nothing is waiting: no empty shard
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    assert held(tmp_path, range(3)) == [1]
    assert len(store) == 1


def test_the_number_format_rounds_at_once_what_is_read_rounded_later(tmp_path: Path) -> None:
    store = Store(tmp_path, torch.bfloat16)
    given = {"moments": torch.rand(2, 8)}
    put = store.put(key(0), given)["moments"]
    store.flush()
    again = Store(tmp_path, torch.bfloat16).get(key(0))
    assert again is not None
    assert again["moments"].dtype == torch.bfloat16
    assert torch.equal(again["moments"], put)
    torch.testing.assert_close(put.float(), given["moments"], rtol=2**-8, atol=0)


def killed_and_gone_on_with(folder: Path, times: int, seed: int) -> None:
    """Kill a filling process at random moments, then let one come to its end."""
    chance = random.Random(seed)
    before: list[int] = []
    for _ in range(times):
        child = in_child(lambda: fill(folder, range(100), pause=0.0005))
        time.sleep(chance.uniform(0.0, 0.12))
        os.kill(child, signal.SIGKILL)
        status_of(child)
        after = held(folder, range(100))
        assert set(before) <= set(after)
        assert after == list(range(len(after)))  # in their order: nothing is missing but the end
        before = after
    assert status_of(in_child(lambda: fill(folder, range(100)))) == 0
    assert held(folder, range(100)) == list(range(100))
    assert all(finding.fault is None for finding in verify(folder))
    shards = [Shard(path) for path in folder.glob("*.safetensors")]
    assert sum(len(shard.keys) for shard in shards) == 100  # nothing was made twice


def test_a_killed_filling_loses_the_open_shard_at_most(tmp_path: Path) -> None:
    killed_and_gone_on_with(tmp_path, times=6, seed=0)


@pytest.mark.slow
def test_a_filling_killed_a_hundred_times(tmp_path: Path) -> None:
    for seed in range(20):
        killed_and_gone_on_with(tmp_path / str(seed), times=5, seed=seed)


def test_processes_that_fill_at_once_make_one_set(tmp_path: Path) -> None:
    children = [in_child(lambda: fill(tmp_path, range(60), pause=0.001)) for _ in range(3)]
    assert [status_of(child) for child in children] == [0, 0, 0]
    assert held(tmp_path, range(60)) == list(range(60))
    assert len(opened(tmp_path)) == 60


def test_what_another_process_writes_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "LOOK_SECONDS", 0.0)
    early = opened(tmp_path)
    assert early.get(key(5)) is None
    fill(tmp_path, range(5, 6))
    assert early.get(key(5)) is not None


def test_a_full_disk_leaves_whole_what_was_written_before(tmp_path: Path) -> None:
    """A process that may write files of 4 kB only meets what a full disk answers."""

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
        fill(tmp_path, range(4))
        store = Store(tmp_path, torch.float32)
        for number in range(4, 40):
            store.put(key(number), entry(number))
        with pytest.raises(CacheError, match=r"cannot be written: .* are intact; free some disk space"):
            store.flush()

    assert status_of(in_child(work)) == 0
    assert held(tmp_path, range(40)) == [0, 1, 2, 3]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_training_goes_on_where_nothing_can_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").write_text("a file in the way")
    backend = DiskBackend(opened(tmp_path / "folder"))
    for number in range(20):
        assert torch.equal(backend.put(key(number), entry(number))["moments"], entry(number)["moments"])
    backend.close()
    assert capsys.readouterr().err.count("Training continues without storing more entries") == 1


def test_a_turned_bit_is_found_said_and_repaired(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, range(4))
    [path] = tmp_path.glob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[content.index(entry(2)["moments"].numpy().tobytes())] ^= 1
    path.write_bytes(content)
    left = held(tmp_path, range(4))
    assert left == [0, 1, 3]
    assert f"{path} is damaged: entry" in capsys.readouterr().err.replace("\n", "")
    [finding] = verify(tmp_path)
    assert (finding.entries, finding.damaged) == (4, 1)
    assert "1 of 4 entries do not match their checksum" in str(finding.fault)
    assert repair(finding) == 3
    assert held(tmp_path, range(4)) == left
    assert [each.fault for each in verify(tmp_path)] == [None]
    fill(tmp_path, range(4))
    assert held(tmp_path, range(4)) == [0, 1, 2, 3]


def test_an_unreadable_shard_is_left_out_and_cleared_away(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path, range(8))
    first, second = sorted(tmp_path.glob("*.safetensors"))
    first.write_bytes(first.read_bytes()[:100])
    assert len(held(tmp_path, range(8))) == 4
    assert "computes its entries again" in capsys.readouterr().err
    bad = [finding for finding in verify(tmp_path) if finding.fault is not None]
    assert [finding.path for finding in bad] == [first]
    assert repair(bad[0]) == 0
    assert list(tmp_path.iterdir()) == [second]


def test_a_shard_that_goes_away_is_made_anew(tmp_path: Path) -> None:
    fill(tmp_path, range(2))
    store = opened(tmp_path)
    for path in tmp_path.glob("*.safetensors"):
        path.unlink()
    assert store.get(key(0)) is None


def test_what_killed_processes_left_half_written_is_found_when_it_is_old(tmp_path: Path) -> None:
    fill(tmp_path, range(2))
    fresh, old = (tmp_path / f".{name}-00000.safetensors.77.partial" for name in ("fresh", "old"))
    fresh.write_bytes(b"half")
    old.write_bytes(b"half")
    long_ago = time.time() - 7200
    os.utime(old, (long_ago, long_ago))
    bad = [finding for finding in verify(tmp_path) if finding.fault is not None]
    assert [finding.path for finding in bad] == [old]
    repair(bad[0])
    assert fresh.exists()
    assert not old.exists()


def test_a_folder_that_is_no_cache_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="holds no shards"):
        verify(tmp_path)
    with pytest.raises(CacheError, match="there is no folder"):
        verify(tmp_path / "none")


@pytest.mark.slow
def test_a_million_entries_open_in_two_seconds_and_a_gigabyte(tmp_path: Path) -> None:
    """The index alone is opened, so that the values may be small."""
    value = {"moments": torch.zeros(2, 4, 1, 1)}
    for start in range(0, 1_000_000, 4000):  # 256 MB of latents of 512 x 512 pixels, in bfloat16
        entries = {key(number): value for number in range(start, start + 4000)}
        write_shard(tmp_path / f"{start:07d}.safetensors", entries)

    def work() -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begun = time.process_time()  # the files are in memory; other work on the machine does not count
        again = Store(tmp_path, torch.float32)
        seconds = time.process_time() - begun
        assert key(999_999) in again
        assert key(1_000_000) not in again
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        (tmp_path / "measured").write_text(f"{seconds:.2f} s, {grown:.0f} MiB more")
        assert seconds < 2
        assert grown < 1024

    assert status_of(in_child(work)) == 0, (tmp_path / "measured").read_text()
    print((tmp_path / "measured").read_text())
