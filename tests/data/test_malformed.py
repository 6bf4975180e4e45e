"""What strangers may hand over: 310 broken pictures and lists. None crashes, gets lost or leads outside."""

import io
import json
import os
import struct
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lavibridge.core.errors import DataError
from lavibridge.data.base import Dataset
from lavibridge.data.pictures.rejected import RejectedPictures

Open = Callable[..., Dataset]
QUICK = "/dev/shm" if Path("/dev/shm").is_dir() else None  # memory: each example is brought to the disk
FREELY = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, data: bytes) -> bytes:
    """A PNG whose header promises what it likes."""
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", data),
        (b"IEND", b""),
    ]
    body = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


RED = Image.new("RGB", (9, 7), (200, 30, 30))
WHOLE = [
    saved(RED, "PNG"),
    saved(RED, "JPEG"),
    saved(RED, "WEBP"),
    saved(RED.convert("CMYK"), "JPEG"),
    saved(Image.new("I;16", (9, 7), 40_000), "PNG"),
    saved(RED.convert("P"), "PNG", transparency=0),
    saved(RED, "PNG", save_all=True, append_images=[RED.rotate(90, expand=False)]),
    saved(RED, "WEBP", save_all=True, append_images=[Image.new("RGB", (9, 7))]),
]
FOREIGN = [
    b"",
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
    saved(RED, "GIF", save_all=True, append_images=[Image.new("RGB", (9, 7))]),
    saved(RED, "TIFF"),
    saved(RED, "BMP"),
    b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    b"<!DOCTYPE html><title>404</title>",
    png(60_000, 60_000, zlib.compress(bytes(9999))),
    png(9000, 9900, zlib.compress(bytes(9_000_000))),
    png(0, 0, b""),
    png(9, 7, b"no zlib"),
]
picture = st.one_of(
    st.sampled_from(WHOLE + FOREIGN),
    st.binary(max_size=64),
    st.builds(lambda data, share: data[: int(len(data) * share)], st.sampled_from(WHOLE), st.floats(0, 1)),
    st.builds(
        lambda data, place, byte: data[: int(len(data) * place)] + byte + data[int(len(data) * place) + 1 :],
        st.sampled_from(WHOLE),
        st.floats(0, 1),
        st.binary(min_size=1, max_size=1),
    ),
)
name = st.one_of(
    st.sampled_from(
        ["in.png", "deep/in.png", "../secret.png", "deep/../../secret.png", "link.png", "ring.png"]
    ),
    st.sampled_from(
        ["/etc/passwd", "C:\\x.png", "\\\\host\\x.png", "a\0.png", "", ".", "..", "x" * 5000, "pipe.png"]
    ),
    st.text(max_size=20),
)
caption = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["", "  ", "\ufeff", "a\ttab", '"', "x" * 2**20, "\u2028", "on the left\0"]),
)


def told(rejected: RejectedPictures) -> str:
    for entry in rejected.entries:
        assert entry["file"]
        assert entry["reason"]
    return "\n".join(str(entry["file"]) for entry in rejected.entries)


def all_are_pictures(dataset: Dataset) -> None:
    for index in range(len(dataset)):
        assert dataset.picture(index, (8, 8)).shape == (8, 8, 3)
        assert dataset.sample(index).captions
        assert "secret" not in dataset.sample(index).name


def open_or_refuse(opened: Open, kind: str, rejected: RejectedPictures, **options: Any) -> Dataset | None:
    """The data, or None where it is refused in words of ours; anything else is a crash."""
    try:
        return opened(kind, rejected, max_rejected=1.0, **options)
    except DataError:
        return None


@settings(FREELY, max_examples=18)
@given(
    pictures=st.lists(st.tuples(picture, st.sampled_from(["png", "jpg", "webp"])), min_size=10, max_size=10)
)
def test_180_broken_pictures(pictures: list[tuple[bytes, str]], opened: Open) -> None:
    with tempfile.TemporaryDirectory(dir=QUICK) as place:
        root = Path(place) / "root"
        root.mkdir()
        (root / "good.png").write_bytes(WHOLE[0])
        (root / "good.txt").write_text("good")
        for number, (data, suffix) in enumerate(pictures):
            (root / f"{number}.{suffix}").write_bytes(data)
            (root / f"{number}.txt").write_text("a caption")
        rejected = RejectedPictures()
        dataset = opened("folder", rejected, path=root, index=Path(place) / "index", max_rejected=1.0)
        all_are_pictures(dataset)
        used = {dataset.sample(index).name for index in range(len(dataset))}
        assert used.isdisjoint(told(rejected).splitlines())
        assert len(used) + len(rejected.entries) == 11
        listed = (Path(place) / "index" / "rejected.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in listed] == rejected.entries


def lay_out(root: Path) -> None:
    """A root with pictures, and ways out of it."""
    (root / "deep").mkdir(parents=True)
    for inside in ("in.png", "deep/in.png", "good.png", "../secret.png"):
        (root / inside).write_bytes(WHOLE[0])
    (root / "link.png").symlink_to(root.parent / "secret.png")
    (root / "ring.png").symlink_to("ring.png")
    os.mkfifo(root / "pipe.png")


@settings(FREELY, max_examples=60)
@given(
    kind=st.sampled_from(["tsv", "jsonl", "csv"]),
    rows=st.lists(st.tuples(name, caption), min_size=1, max_size=6),
    start=st.sampled_from([b"", b"\xef\xbb\xbf"]),
    end=st.sampled_from([b"\n", b"\r\n"]),
    noise=st.one_of(st.just(b""), st.binary(max_size=30)),
)
def test_60_broken_lists(
    kind: str, rows: list[tuple[str, str]], start: bytes, end: bytes, noise: bytes, opened: Open
) -> None:
    with tempfile.TemporaryDirectory(dir=QUICK) as place:
        root = Path(place) / "root"
        lay_out(root)
        path = root / f"list.{kind}"
        form: dict[str, Callable[[str, str], str]] = {
            "tsv": lambda file, text: f"{file}\t{text}",
            "jsonl": lambda file, text: json.dumps({"image": file, "caption": text}),
            "csv": lambda file, text: '"{}","{}"'.format(*(each.replace('"', '""') for each in (file, text))),
        }
        lines = [
            form[kind](file, text).encode("utf-8", "replace") for file, text in [("good.png", "good"), *rows]
        ]
        if kind == "csv":
            lines.insert(0, b"image,caption")
        path.write_bytes(start + end.join([*lines, noise]))
        rejected = RejectedPictures()
        dataset = open_or_refuse(opened, kind, rejected, path=path, index=Path(place) / "index")
        assert dataset is not None  # the good line stands first
        all_are_pictures(dataset)
        found = told(rejected)
        for file, _ in rows:
            if file in ("../secret.png", "link.png", "ring.png", "/etc/passwd", "pipe.png"):
                assert file in found or path.name in found


@settings(FREELY, max_examples=50)
@given(
    members=st.lists(st.tuples(name, st.one_of(picture, caption.map(str.encode))), min_size=1, max_size=6),
    share=st.floats(0.3, 1),
    flipped=st.one_of(st.none(), st.integers(0, 10_000)),
)
def test_50_broken_archives(
    members: list[tuple[str, bytes]], share: float, flipped: int | None, opened: Open
) -> None:
    with tempfile.TemporaryDirectory(dir=QUICK) as place:
        path = Path(place) / "root" / "0.tar"
        path.parent.mkdir()
        with tarfile.open(path, "w") as archive:
            for stem, data in members:
                for suffix, content in ((".png", data), (".txt", b"a caption"), (".json", data)):
                    info = tarfile.TarInfo(
                        (stem.replace("\0", "") + suffix).encode("utf-8", "replace").decode()
                    )
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
        broken = bytearray(path.read_bytes())[: int(path.stat().st_size * share)]
        if flipped is not None and flipped < len(broken):
            broken[flipped] ^= 0x41
        path.write_bytes(broken)
        rejected = RejectedPictures()
        dataset = open_or_refuse(opened, "webdataset", rejected, path=path, index=Path(place) / "index")
        told(rejected)
        if dataset is not None:
            all_are_pictures(dataset)
        assert sorted(each.name for each in path.parent.iterdir()) == ["0.tar"]


@settings(FREELY, max_examples=20)
@given(
    cells=st.lists(
        st.tuples(st.one_of(st.none(), picture), st.one_of(st.none(), caption)), min_size=1, max_size=6
    ),
    share=st.sampled_from([1.0, 1.0, 0.9, 0.5]),
)
def test_20_broken_tables(cells: list[tuple[bytes | None, str | None]], share: float, opened: Open) -> None:
    with tempfile.TemporaryDirectory(dir=QUICK) as place:
        path = Path(place) / "0.parquet"
        rows = {
            "image": pa.array([cell for cell, _ in cells], pa.binary()),
            "caption": [text for _, text in cells],
        }
        pq.write_table(pa.table(rows, schema=pa.schema({"image": pa.binary(), "caption": pa.string()})), path)
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
        rejected = RejectedPictures()
        dataset = open_or_refuse(opened, "parquet", rejected, path=path, index=Path(place) / "index")
        told(rejected)
        if dataset is not None:
            all_are_pictures(dataset)
            assert len(dataset) + len(rejected.entries) == len(cells)
        elif share == 1.0:
            assert len(rejected.entries) == len(cells)
