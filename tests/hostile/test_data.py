"""Pictures, archives and indexes of strangers, or damaged: made anew or rejected by name, within bounds."""

import io
import resource
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lavibridge.core.config import validate_config
from lavibridge.core.errors import DataError, RecipeError
from lavibridge.core.registry import load_kind
from lavibridge.data.base import Dataset, open_dataset
from lavibridge.data.pictures import decoding
from lavibridge.data.pictures.rejected import RejectedPictures
from lavibridge.generation.prompt_file import LARGEST_PROMPT_FILE, read_prompt_file


def opened(kind: str, rejected: RejectedPictures | None = None, **options: Any) -> Dataset:
    config = validate_config(load_kind("data", kind).Config, options, "data")
    return open_dataset(kind, config, rejected or RejectedPictures())


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of pictures with captions, and its index beside it."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(4):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"picture {number}")
    return folder


def test_a_damaged_index_is_made_anew(pictures: Path, tmp_path: Path) -> None:
    """Arrow itself crashes on some of these, without an exception."""
    index = tmp_path / "index"
    expected = opened("folder", path=pictures, index=index).fingerprint()
    for name in sorted(path.name for path in index.iterdir() if path.suffix in (".arrow", ".jsonl", ".json")):
        size = (index / name).stat().st_size
        for place in range(0, max(size, 1), max(1, size // 12)):
            content = bytearray((index / name).read_bytes())
            if content:
                content[place] ^= 255
            (index / name).write_bytes(content or b"{")
            again = opened("folder", path=pictures, index=index)
            assert again.fingerprint() == expected
            assert [again.sample(i).name for i in range(len(again))] == [f"{i}.png" for i in range(4)]


def test_an_index_that_names_another_file_is_made_anew(pictures: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    opened("folder", path=pictures, index=index)
    (table,) = index.glob("*.arrow")
    outside = table.rename(tmp_path / table.name)
    manifest = (index / "index.json").read_text()
    (index / "index.json").write_text(manifest.replace(table.name, f"../{table.name}"))
    opened("folder", path=pictures, index=index)
    assert f"../{table.name}" not in (index / "index.json").read_text()
    assert outside.is_file()


def tar_with_header(path: Path, kind: bytes, size: int) -> Path:
    """An archive whose first header states a name or records of so many bytes."""
    header = tarfile.TarInfo("huge")
    header.type, header.size = kind, size
    picture = io.BytesIO()
    Image.new("RGB", (4, 4)).save(picture, "PNG")
    with open(path, "wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        file.truncate(512 + size)  # a sparse file: its bytes take no disk
    return path


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_an_archives_header_of_gigabytes_is_not_read(tmp_path: Path, kind: bytes) -> None:
    path = tar_with_header(tmp_path / "a.tar", kind, 5 * 2**30)
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    rejected = RejectedPictures()
    with pytest.raises(DataError):
        opened("webdataset", rejected, path=path, max_rejected=1.0)
    assert any("a header states" in str(entry) for entry in rejected.entries)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # KiB
    assert time.perf_counter() - begun < 10


def test_large_pictures_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now, most, lock = 0, 0, threading.Lock()
    real = decoding.to_srgb

    def counted(image: Image.Image, bits: int) -> Any:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        with lock:
            now -= 1
        return real(image, bits)

    monkeypatch.setattr(decoding, "to_srgb", counted)
    file = io.BytesIO()
    Image.new("RGB", (40, 40)).save(file, "PNG")
    for large, expected in ((40 * 40 - 1, 1), (40 * 40, 4)):
        most = 0
        monkeypatch.setattr(decoding, "_LARGE", large)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(decoding.decode_picture, [file.getvalue()] * 8))
        assert (most == 1) == (expected == 1)


def test_a_file_of_prompts_has_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.touch()
    with open(path, "r+b") as file:
        file.truncate(LARGEST_PROMPT_FILE + 1)
    with pytest.raises(RecipeError, match=r"prompts\.txt has .* bytes.*split it"):
        read_prompt_file(path)
