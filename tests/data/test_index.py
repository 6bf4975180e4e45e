"""The index: made once, trusted while files stay the same, taken up where a check was broken off."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lavibridge.cli.main import app
from lavibridge.core.errors import DataError
from lavibridge.core.identity import cached_file_hash
from lavibridge.data.base import Dataset
from lavibridge.data.pictures.rejected import RejectedPictures

Open = Callable[..., Dataset]
RECIPE = "mini-llama_mini-sd_lavi"


def spoil(path: Path) -> None:
    """Break a picture so that size and time of change do not tell: only who reads it finds out."""
    before = path.stat()
    path.write_bytes(b"\0" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def a_list(folder: Path, put: Any, count: int) -> Path:
    names = [f"{number:04d}.png" for number in range(count)]
    for number, name in enumerate(names):
        put(folder / name, shade=number % 200, size=(4, 4))
    path = folder / "pairs.tsv"
    path.write_text("".join(f"{name}\tpicture {name}\n" for name in names))
    return path


def test_a_fresh_index_is_used_and_no_picture_read(tmp_path: Path, put: Any, opened: Open) -> None:
    path = a_list(tmp_path, put, 3)
    first = opened("tsv", path=path)
    spoil(tmp_path / "0001.png")
    second = opened("tsv", path=path)
    assert len(second) == 3
    assert second.fingerprint() == first.fingerprint()
    with pytest.raises(DataError, match=r"0001\.png has changed since it was checked"):
        second.picture(1, (8, 8))


@pytest.mark.parametrize("kind", ["tsv", "folder"])
def test_a_change_is_noticed_and_only_changed_pictures_are_read(
    kind: str, tmp_path: Path, put: Any, opened: Open
) -> None:
    path = a_list(tmp_path, put, 3)
    for number in range(3):
        (tmp_path / f"{number:04d}.txt").write_text(f"caption {number}")
    path = path if kind == "tsv" else tmp_path
    before = opened(kind, path=path).fingerprint()
    spoil(tmp_path / "0000.png")  # not read again, so that it passes
    put(tmp_path / "0001.png", 250, (6, 6))
    (tmp_path / "0002.png").write_bytes(b"no picture any more")
    rejected = RejectedPictures()
    dataset = opened(kind, rejected, path=path, max_rejected=0.5)
    assert [dataset.sample(index).name for index in range(len(dataset))] == ["0000.png", "0001.png"]
    assert dataset.sizes().tolist() == [[4, 4], [6, 6]]
    assert [entry["file"] for entry in rejected.entries] == ["0002.png"]
    assert dataset.fingerprint() != before


def test_a_changed_caption_a_new_and_a_lost_picture_are_noticed(
    tmp_path: Path, put: Any, opened: Open
) -> None:
    for name in ("a", "b"):
        put(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text("one")
    assert len(opened("folder", path=tmp_path)) == 2
    (tmp_path / "a.txt").write_text("two")
    assert opened("folder", path=tmp_path).sample(0).captions == ("two",)
    put(tmp_path / "deep" / "c.png")
    (tmp_path / "deep" / "c.txt").write_text("three")
    assert len(opened("folder", path=tmp_path)) == 3
    (tmp_path / "b.png").unlink()
    assert len(opened("folder", path=tmp_path)) == 2


def test_rejections_are_told_again_from_the_index(tmp_path: Path, put: Any, opened: Open) -> None:
    path = a_list(tmp_path, put, 3)
    path.write_text(path.read_text() + "gone.png\tx\n0000.png\t\n")
    first, second = (
        RejectedPictures(tmp_path / "run" / "rejected.jsonl"),
        RejectedPictures(tmp_path / "run2" / "rejected.jsonl"),
    )
    opened("tsv", first, path=path, max_rejected=0.5)
    opened("tsv", second, path=path, max_rejected=0.5)
    assert first.entries == second.entries
    assert {"file": "gone.png", "reason": "there is no such file", "line": 4} in second.entries
    assert (tmp_path / "run2" / "rejected.jsonl").read_text() == (
        tmp_path / "run" / "rejected.jsonl"
    ).read_text()


@pytest.mark.parametrize("damage", ["truncated", "garbage", "other version"])
def test_a_damaged_index_is_made_anew(damage: str, tmp_path: Path, put: Any, opened: Open) -> None:
    path, index = a_list(tmp_path, put, 3), tmp_path / "index"
    expected = opened("tsv", path=path, index=index).fingerprint()
    table = next(index.glob("pictures-*.arrow"))
    if damage == "truncated":
        table.write_bytes(table.read_bytes()[:-100])
    elif damage == "garbage":
        (index / "index.json").write_text("{")
    else:
        manifest = json.loads((index / "index.json").read_text())
        (index / "index.json").write_text(json.dumps({**manifest, "version": 0}))
    assert opened("tsv", path=path, index=index).fingerprint() == expected


def test_an_index_that_cannot_be_written_says_where_else(tmp_path: Path, put: Any, opened: Open) -> None:
    path = a_list(tmp_path, put, 1)
    (tmp_path / "file").write_text("")
    with pytest.raises(
        DataError, match=r"cannot be written to .*data\.index to another folder, or set LAVIBRIDGE_CACHE"
    ):
        opened("tsv", path=path, index=tmp_path / "file" / "index")


MORTAL = """
import os, signal, sys
from pathlib import Path
from lavibridge.data.tsv import Tsv
from lavibridge.data.pictures.rejected import RejectedPictures

class Mortal(Tsv):
    def read(self, entry):
        if entry.name == "0600.png":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(entry)

Mortal.__module__ = Tsv.__module__
Mortal(Mortal.Config(path=Path(sys.argv[1]), index=Path(sys.argv[2])), RejectedPictures())
"""


def test_a_check_that_was_killed_goes_on_where_it_stopped(tmp_path: Path, put: Any, opened: Open) -> None:
    path, index = a_list(tmp_path, put, 700), tmp_path / "index"
    done = subprocess.run([sys.executable, "-c", MORTAL, path, index], capture_output=True, check=False)
    assert done.returncode == -9, done.stderr.decode()
    assert not (index / "index.json").exists()
    for number in range(500):
        spoil(tmp_path / f"{number:04d}.png")
    rejected = RejectedPictures()
    dataset = opened("tsv", rejected, path=path, index=index)
    assert len(dataset) == 700
    assert not rejected.entries
    assert [file.suffix for file in index.iterdir()].count(".checks") == 0


def test_the_command_checks_from_the_ground(tmp_path: Path, put: Any) -> None:
    path = a_list(tmp_path, put, 20)
    path.write_text(path.read_text() + "gone.png\tx\n")
    arguments = ["data", "check", RECIPE, "data.kind=tsv", f"data.path={path}"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "20 usable pictures, 1 rejected" in done.stdout
    listed = Path(done.stdout.split("rejected: ")[1].strip())
    assert json.loads(listed.read_text())["file"] == "gone.png"
    put(tmp_path / "gone.png")
    assert "21 usable pictures, 0 rejected" in CliRunner().invoke(app, arguments).stdout
    for number in range(5):
        (tmp_path / f"{number:04d}.png").unlink()
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, DataError)
    assert "5 of 21 pictures are unusable" in str(done.exception)


def test_the_command_takes_mixtures_apart_and_leaves_the_world_alone(tmp_path: Path, put: Any) -> None:
    path = a_list(tmp_path, put, 2)
    parts = f"[{{kind: world, scenes: 5}}, {{kind: tsv, path: {path}}}]"
    done = CliRunner().invoke(app, ["data", "check", RECIPE, "data.kind=mixture", f"data.parts={parts}"])
    assert "world: 5 pictures, drawn on demand" in done.stdout
    assert "2 usable pictures" in done.stdout


OPEN = """
import resource, sys, time
from pathlib import Path
from lavibridge.data.tsv import Tsv
from lavibridge.data.pictures.rejected import RejectedPictures

begun = time.perf_counter()
dataset = Tsv(Tsv.Config(path=Path(sys.argv[1]), index=Path(sys.argv[2])), RejectedPictures())
opened = time.perf_counter() - begun
assert len(dataset) == 1_000_000
assert dataset.sample(765_432).captions == ("a picture, number 765432, with a caption of usual length",)
sizes = dataset.sizes().sum()
print(opened, time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.slow
def test_a_million_entries_open_within_two_seconds_and_a_gibibyte(tmp_path: Path) -> None:
    import pyarrow as pa

    from lavibridge.data.pictures.image_table import (
        IMAGE_TABLE_SCHEMA,
        ImageCheck,
        ImageTableEntry,
        image_table_rows,
    )
    from lavibridge.data.pictures.index import ImageIndex
    from lavibridge.data.pictures.indexed import index_of
    from lavibridge.data.pictures.rejected import write_rejections
    from lavibridge.data.tsv import Tsv

    path = tmp_path / "pairs.tsv"
    path.write_text("pictures/0.png\ta picture\n")
    config = Tsv.Config(path=path, index=tmp_path / "index")
    index: ImageIndex = index_of(Tsv, config)
    index.folder.mkdir()
    table = index.folder / "pictures-0.arrow"
    with pa.OSFile(str(table), "wb") as file, pa.ipc.new_file(file, IMAGE_TABLE_SCHEMA) as writer:
        for start in range(0, 1_000_000, 512):
            numbers = range(start, min(start + 512, 1_000_000))
            entries = [
                ImageTableEntry(
                    name=f"pictures/{number:08d}.png",
                    captions=(f"a picture, number {number}, with a caption of usual length",),
                )
                for number in numbers
            ]
            verdict = ImageCheck(stamp=(1, 2), size=(512, 512), digest=bytes(32))
            writer.write_batch(image_table_rows(entries, [verdict] * len(entries)))
    write_rejections(index.rejected, [])
    stamps = {"list": cached_file_hash(path)}
    index.finish(table, stamps, 1_000_000, "a million")
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", OPEN, path, index.folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    opening, all_sizes, gibibytes = map(float, done.stdout.split())
    print(f"opened in {opening:.3f} s, sizes of all {all_sizes:.3f} s, {gibibytes:.3f} GiB at most")
    assert opening < 2
    assert gibibytes < 1
    assert time.perf_counter() - begun < 60


def test_a_list_of_the_same_size_and_time_is_read_anew(tmp_path: Path, put: Any, opened: Open) -> None:
    path = a_list(tmp_path, put, 2)
    before = path.stat()
    assert opened("tsv", path=path).sample(0).captions == ("picture 0000.png",)
    path.write_text(path.read_text().replace("picture", "drawing"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert opened("tsv", path=path).sample(0).captions == ("drawing 0000.png",)
