"""Colours are what a picture's profile says: the right numbers in sRGB, by mathematics of our own."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from lavibridge.data.base import Dataset
from lavibridge.data.pictures.decoding import decode_picture, decode_picture_with_warning
from lavibridge.data.pictures.rejected import RejectedPictures

# Primaries in the profile's own white (D50), columns red, green, blue: Apple's Display P3, and sRGB's.
P3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])


def fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def curve(gamma: float | None) -> bytes:
    """A tone curve: a power, or sRGB's own."""
    if gamma is None:
        return b"para\0\0\0\0\0\3\0\0" + b"".join(
            map(fixed, (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
        )
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"


def icc(space: str, tags: dict[str, bytes]) -> bytes:
    """A display's profile of version 4."""
    place, table, body = 132 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        table += name.encode() + struct.pack(">II", place + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    head = struct.pack(
        ">I4sI4s4s4s12x4s", place + len(body), b"lcms", 0x04200000, b"mntr", space.encode(), b"XYZ ", b"acsp"
    )
    head = head.ljust(68, b"\0") + b"".join(map(fixed, (0.9642, 1, 0.8249)))
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def white() -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(fixed, (0.9642, 1, 0.8249)))


def matrix_profile(primaries: np.ndarray, gamma: float | None = None) -> bytes:
    columns = {
        f"{name}XYZ": b"XYZ \0\0\0\0" + b"".join(map(fixed, column))
        for name, column in zip("rgb", primaries.T, strict=True)
    }
    return icc("RGB ", {"wtpt": white(), **columns, **{f"{name}TRC": curve(gamma) for name in "rgb"}})


def grey_profile(gamma: float) -> bytes:
    return icc("GRAY", {"wtpt": white(), "kTRC": curve(gamma)})


def linear(value: np.ndarray) -> np.ndarray:
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def encoded_srgb(value: np.ndarray) -> np.ndarray:
    value = np.clip(value, 0, 1)
    return np.where(value <= 0.0031308, value * 12.92, 1.055 * value ** (1 / 2.4) - 0.055)


def as_srgb(colour: tuple[int, ...], primaries: np.ndarray) -> np.ndarray:
    """sRGB numbers of a colour, from the definitions alone."""
    light = linear(np.array(colour) / 255)
    return encoded_srgb(np.linalg.solve(SRGB, primaries @ light)) * 255


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "colour", [(200, 100, 50), (40, 180, 90), (255, 0, 0), (128, 128, 128), (10, 20, 240)]
)
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_display_p3_becomes_srgb(colour: tuple[int, int, int], kind: str) -> None:
    options = {"PNG": {}, "WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}[kind]
    data = saved(Image.new("RGB", (16, 16), colour), kind, icc_profile=matrix_profile(P3), **options)
    expected = as_srgb(colour, P3)
    found = np.array(decode_picture(data).getpixel((8, 8)))
    assert np.abs(found - expected).max() <= (5 if kind == "JPEG" else 1.5)
    if colour == (200, 100, 50):
        assert abs(int(found[0]) - 200) > 8  # not what the file's numbers say


def test_srgb_and_no_profile_keep_every_number() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (None, own, matrix_profile(SRGB)):
        options = {} if profile is None else {"icc_profile": profile}
        assert np.array_equal(np.asarray(decode_picture(saved(Image.fromarray(noise), **options))), noise)


def test_transparency_and_palettes_go_with_a_profile() -> None:
    expected = np.rint(as_srgb((200, 100, 50), P3))
    half = Image.new("RGBA", (4, 4), (200, 100, 50, 128))
    found = np.array(decode_picture(saved(half, icc_profile=matrix_profile(P3))).getpixel((0, 0)))
    assert np.abs(found - (expected * 128 + 255 * 127) / 255).max() <= 1.5
    palette = Image.new("RGB", (4, 4), (200, 100, 50)).quantize(4)
    found = np.array(decode_picture(saved(palette, icc_profile=matrix_profile(P3))).getpixel((0, 0)))
    assert np.abs(found - expected).max() <= 1.5


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_greys_follow_their_profile(mode: str) -> None:
    deep = Image.fromarray(np.full((4, 4), 100 * 257, dtype=np.uint16))
    image = deep if mode == "I;16" else Image.new(mode, (4, 4), 100 if mode == "L" else (100, 255))
    expected = float(encoded_srgb(np.array((100 / 255) ** 1.0)) * 255)
    found = decode_picture(saved(image, icc_profile=grey_profile(1.0))).getpixel((0, 0))
    assert np.abs(np.array(found) - expected).max() <= 1.5
    assert expected > 160
    # A grey picture may have a colour profile: its greys are those of that space.
    found = decode_picture(saved(image, icc_profile=matrix_profile(P3))).getpixel((0, 0))
    assert np.abs(np.array(found) - 100).max() <= 1


def test_cmyk_follows_its_profile() -> None:
    """A press whose inks take all light away: a table of two corners a side."""
    lab = b"".join(
        struct.pack(">3H", round((1 - max(c, m, y)) * (1 - k) * 65280), 32768, 32768)
        for c in (0, 1)
        for m in (0, 1)
        for y in (0, 1)
        for k in (0, 1)
    )
    unit = struct.pack(">2H", 0, 65535)
    identity = b"".join(fixed(float(row == column)) for row in range(3) for column in range(3))
    table = (
        b"mft2\0\0\0\0"
        + bytes([4, 3, 2, 0])
        + identity
        + struct.pack(">2H", 2, 2)
        + unit * 4
        + lab
        + unit * 3
    )
    profile = bytearray(icc("CMYK", {"wtpt": white(), "A2B0": table}))
    profile[8:12], profile[12:16], profile[20:24] = b"\2\x40\0\0", b"prtr", b"Lab "
    data = saved(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG", quality=100, icc_profile=bytes(profile))
    image, note = decode_picture_with_warning(data)
    assert note is None
    assert (
        max(image.getpixel((4, 4))) <= 8
    )  # this press's cyan is black; without its profile it is (0, 255, 255)
    data = saved(Image.new("CMYK", (8, 8)), "JPEG", quality=100, icc_profile=bytes(profile))
    assert min(decode_picture(data).getpixel((4, 4))) >= 247


@pytest.mark.parametrize(
    "profile",
    [
        b"no profile",
        matrix_profile(P3)[:200],
        grey_profile(1.0),
        icc("CMYK", {}),
        icc("RGB ", {}),
        icc("XXXX", {}),
    ],
    ids=["junk", "cut", "grey", "cmyk", "empty", "unknown"],
)
def test_a_profile_that_cannot_be_used_is_noted_and_the_picture_used(
    profile: bytes, tmp_path: Path, opened: Callable[..., Dataset]
) -> None:
    (tmp_path / "a.png").write_bytes(saved(Image.new("RGB", (8, 8), (200, 100, 50)), icc_profile=profile))
    (tmp_path / "a.txt").write_text("words")
    for _ in range(2):
        rejected = RejectedPictures()
        dataset = opened("folder", rejected, path=tmp_path)
        assert tuple(dataset.picture(0, (8, 8))[0, 0]) == (200, 100, 50)
        assert not rejected.entries
        assert [note["file"] for note in rejected.warnings] == ["a.png"]
        assert "count as sRGB" in str(rejected.warnings[0]["reason"])
        (tmp_path / "b.md").write_text("the folder has changed, the picture has not")
        (tmp_path / "b.md").unlink()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(depth: int, colour: int, row: bytes, *more: bytes, width: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header), *more, chunk(b"IDAT", zlib.compress(b"\0" + row)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("depth", "colour", "row", "transparent", "expected"),
    [
        (16, 0, struct.pack(">2H", 0, 40_000), (40_000,), [(0, 0, 0), (255, 255, 255)]),
        (16, 0, struct.pack(">2H", 25_700, 40_000), (40_001,), [(100,) * 3, (156,) * 3]),
        (
            16,
            2,
            struct.pack(">6H", 1000, 2000, 3000, 65535, 0, 0),
            (1000, 2000, 3000),
            [(255,) * 3, (255, 0, 0)],
        ),
        (8, 0, bytes([7, 9]), (7,), [(255,) * 3, (9,) * 3]),
        (4, 0, bytes([0x70]), (7,), [(255,) * 3, (0,) * 3]),
        (2, 0, bytes([0b01_11_0000]), (1,), [(255,) * 3, (255,) * 3]),
        (1, 0, bytes([0b1000_0000]), (0,), [(255,) * 3, (255,) * 3]),
    ],
)
def test_one_transparent_colour_is_white_at_every_depth(
    depth: int, colour: int, row: bytes, transparent: tuple[int, ...], expected: list[tuple[int, ...]]
) -> None:
    image = decode_picture(
        png(depth, colour, row, chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)))
    )
    assert [image.getpixel((x, 0)) for x in range(2)] == expected


@pytest.mark.parametrize("name", ["tEXt", "zTXt", "iTXt", "iCCP"])
def test_two_megabytes_beside_the_pixels_are_no_fault(name: str) -> None:
    text = b"x" * (2 * 2**20)
    data = {
        "tEXt": b"k\0" + text,
        "zTXt": b"k\0\0" + zlib.compress(text),
        "iTXt": b"k\0\1\0\0\0" + zlib.compress(text),
        "iCCP": b"k\0\0" + zlib.compress(matrix_profile(SRGB) + text),
    }[name]
    assert decode_picture(png(8, 2, bytes([9] * 6), chunk(name.encode(), data))).getpixel((0, 0)) == (9, 9, 9)
