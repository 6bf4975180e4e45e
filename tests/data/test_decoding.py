"""Opening pictures: every mode and size becomes RGB of one size, every broken file a DataError."""

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lavibridge.core.errors import DataError
from lavibridge.data.pictures.decoding import (
    decode_picture,
    decode_picture_file,
    normalize_pixels,
    scale_and_crop,
)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG of a few hundred bytes whose header promises 60,000 x 60,000 pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(9999)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (300, 7), (64, 64)])
def test_any_shape_becomes_the_asked_size(tmp_path: Path, kind: str, shape: tuple[int, int]) -> None:
    path = tmp_path / "picture"
    path.write_bytes(encoded(Image.new("RGB", shape, (200, 30, 40)), kind))
    pixels = scale_and_crop(decode_picture_file(path), (24, 32))
    assert pixels.shape == (24, 32, 3)
    assert np.abs(pixels.astype(int) - (200, 30, 40)).max() <= 6


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    decoded = decode_picture(encoded(Image.new(mode, (5, 4)), "PNG"))
    assert decoded.mode == "RGB"
    assert decoded.size == (5, 4)


def test_transparency_lies_over_white_and_deep_greys_are_scaled() -> None:
    half = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert decode_picture(encoded(half, "PNG")).getpixel((0, 0)) == (255, 255, 255)
    deep = Image.fromarray(np.full((2, 2), 128 * 257, dtype=np.uint16))
    assert decode_picture(encoded(deep, "PNG")).getpixel((0, 0)) == (128, 128, 128)


def test_cmyk_jpeg_and_exif_orientation() -> None:
    assert decode_picture(encoded(Image.new("CMYK", (8, 8)), "JPEG")).mode == "RGB"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    assert decode_picture(encoded(Image.new("RGB", (40, 20)), "JPEG", exif=exif)).size == (20, 40)


def test_the_centre_is_kept_and_nothing_is_stretched() -> None:
    wide = np.zeros((32, 96, 3), dtype=np.uint8)
    wide[:, 32:64] = 255
    assert scale_and_crop(Image.fromarray(wide), (32, 32)).min() == 255


def test_unit_range_and_channel_order() -> None:
    pixels = np.zeros((2, 3, 3), dtype=np.uint8)
    pixels[..., 0] = 255
    unit = normalize_pixels(pixels)
    assert unit.shape == (3, 2, 3)
    assert (unit[0] == 1).all()
    assert (unit[1:] == -1).all()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "0 bytes"),
        (b"not a picture at all", "not a JPEG"),
        (encoded(Image.effect_noise((64, 64), 40), "PNG")[:500], "cannot be decoded"),
        (encoded(Image.effect_noise((64, 64), 40), "JPEG")[:700], "cannot be decoded"),
        (encoded(Image.new("RGB", (4, 4)), "GIF"), "not a JPEG"),
        (encoded(Image.new("RGB", (4, 4)), "TIFF"), "not a JPEG"),
        (bomb(), "pixels"),
    ],
    ids=["empty", "text", "cut-png", "cut-jpeg", "gif", "tiff", "bomb"],
)
def test_broken_files_are_turned_away_with_a_reason(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(data)
    with pytest.raises(DataError, match=said):
        decode_picture_file(path)
    assert path.read_bytes() == data


def test_a_missing_file_and_a_folder_are_turned_away(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        decode_picture_file(tmp_path / "gone.png")
    with pytest.raises(DataError, match="not a regular file"):
        decode_picture_file(tmp_path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    position=st.integers(0, 10_000), byte=st.integers(0, 255), kind=st.sampled_from(["PNG", "JPEG", "WEBP"])
)
def test_a_flipped_byte_gives_a_picture_or_a_data_error(position: int, byte: int, kind: str) -> None:
    data = bytearray(encoded(Image.effect_noise((12, 12), 50).convert("RGB"), kind))
    data[position % len(data)] = byte
    with contextlib.suppress(DataError):
        assert decode_picture(bytes(data)).mode == "RGB"
