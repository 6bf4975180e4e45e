"""Decodes an untrusted picture safely and brings it to one size.

    file -> format on the list -> pixel count -> decode -> EXIF turn -> sRGB over white -> crop to size

Uses only the decoders for JPEG, PNG and WebP (Pillow has some forty others, several with past
vulnerabilities). Reads a picture's header before its pixels and rejects a header that claims too many pixels:
a "decompression bomb" of a few kilobytes expands to gigabytes. Source: Pillow's security notes.
"""

import io
import stat
import warnings
from contextlib import nullcontext
from pathlib import Path
from threading import Lock

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps, PngImagePlugin

from lavibridge.core.errors import DataError
from lavibridge.data.pictures.icc_profile import to_srgb

DECODING_VERSION = 2
"""Version of the decoding, raised whenever pixels change; indexes and cached latents depend on it."""
_FORMATS = ("JPEG", "PNG", "WEBP")
_MAX_PIXELS = 89_478_485
"""Maximum pixels per picture, about 9,500 x 9,500: the limit at which Pillow warns."""
_MAX_BYTES = 512 * 2**20
"""Maximum bytes per file."""
_LARGE = 2**24
"""Pixels above which pictures are decoded one at a time: each takes up to a gigabyte while it is."""
_one_large_picture = Lock()
# A PNG may hold long compressed texts, such as a workflow; Pillow's limit of 1 MiB would reject it.
PngImagePlugin.MAX_TEXT_CHUNK = 16 * 2**20


def decode_picture_file(path: Path) -> Image.Image:
    """Decode a picture file to upright RGB. Raises DataError with the reason if that fails."""
    return decode_picture(read_picture_bytes(path))


def read_picture_bytes(path: Path) -> bytes:
    """Read the bytes of a picture file. Raises DataError with the reason if that fails."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # opening a pipe would block
            raise DataError("it is not a regular file")
        check_picture_bytes(found.st_size)
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataError("there is no such file") from error
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror or error}") from error


def check_picture_bytes(length: int) -> None:
    """Raise DataError for an empty or too large file."""
    if length == 0:
        raise DataError("the file is empty (0 bytes)")
    if length > _MAX_BYTES:
        raise DataError(f"the file has {length:,} bytes; at most {_MAX_BYTES:,} are read")


def decode_picture(data: bytes) -> Image.Image:
    """Decode a file's bytes to upright sRGB over white. Raises DataError with the reason if that fails."""
    return decode_picture_with_warning(data)[0]


def decode_picture_with_warning(data: bytes) -> tuple[Image.Image, str | None]:
    """Decode a file's bytes; also return a warning if a part of the file was ignored, or None."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > _MAX_PIXELS:
                raise DataError(f"it is {width} x {height}: more than {_MAX_PIXELS:,} pixels")
            with _one_large_picture if width * height > _LARGE else nullcontext():
                image.load()
                # Byte 24 of a PNG is the number of bits per sample.
                return to_srgb(_apply_exif_orientation(image), data[24] if image.format == "PNG" else 8)
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"its header claims more than {_MAX_PIXELS:,} pixels") from error
    except Image.UnidentifiedImageError as error:
        raise DataError("it is not a JPEG, PNG or WebP picture; convert it to one of them") from error
    # Decoders raise almost any exception for a broken file (struct.error, SyntaxError, zlib.error, ...): the
    # file is at fault in every case, and the rejection quotes the exception.
    except Exception as error:
        raise DataError(f"it cannot be decoded: {error}") from error


def _apply_exif_orientation(image: Image.Image) -> Image.Image:
    """Rotate a picture by its EXIF orientation; ignore broken EXIF data."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # only the tag is broken, the pixels are intact
        return image


def scale_and_crop(image: Image.Image, size: tuple[int, int]) -> UInt8[np.ndarray, "height width 3"]:
    """Scale a picture to cover (height, width) and crop its centre."""
    height, width = size
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    return np.array(image, dtype=np.uint8)


def normalize_pixels(pixels: UInt8[np.ndarray, "height width 3"]) -> Float[np.ndarray, "3 height width"]:
    """Convert bytes to floats in [-1, 1], channels first, as a vision model's autoencoder expects."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype(np.float32) / 127.5 - 1.0


def forbid_decompression_bombs() -> None:
    """Turn Pillow's warning about huge pictures into an error, as its documentation advises."""
    warnings.simplefilter("error", Image.DecompressionBombWarning)
