"""Open a stranger's picture safely and make it one size.

    file -> format on the list -> pixel count -> decode -> EXIF turn -> sRGB over white -> crop to size

Only JPEG, PNG and WebP decoders are ever started (Pillow knows some forty others, several with a history),
a picture's header is read before its pixels, and a header that promises too many pixels is refused unread
(a "decompression bomb": a few kilobytes that unfold into gigabytes). Source: Pillow's security notes.
"""

import io
import stat
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps, PngImagePlugin

from lavibridge.core.errors import DataError
from lavibridge.data.pictures.icc_profile import to_srgb

VERSION = 2
"""Of what is made of a file's bytes, raised whenever pixels change; indexes and cached latents go by it."""
FORMATS = ("JPEG", "PNG", "WEBP")
MAX_PIXELS = 89_478_485
"""Pixels in one picture, about 9,500 x 9,500: Pillow's own limit, at which it warns."""
MAX_BYTES = 512 * 2**20
"""Bytes in one file."""
# Packed texts beside a PNG's pixels, such as a whole workflow; at Pillow's own 1 MiB the picture is refused.
PngImagePlugin.MAX_TEXT_CHUNK = 16 * 2**20


def read_picture(path: Path) -> Image.Image:
    """Decode a picture file: upright RGB; DataError says why not."""
    return decode(read_file(path))


def read_file(path: Path) -> bytes:
    """The bytes of a picture file; DataError says why not."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # to open a pipe would wait for its other end
            raise DataError("it is no regular file")
        check_length(found.st_size)
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataError("there is no such file") from error
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror or error}") from error


def check_length(length: int) -> None:
    """DataError for a picture of no bytes, or of too many."""
    if length == 0:
        raise DataError("the file is empty (0 bytes)")
    if length > MAX_BYTES:
        raise DataError(f"the file has {length:,} bytes; at most {MAX_BYTES:,} are read")


def decode(data: bytes) -> Image.Image:
    """An sRGB picture from a file's bytes, upright and over white; DataError says what is wrong with it."""
    return decode_with_warning(data)[0]


def decode_with_warning(data: bytes) -> tuple[Image.Image, str | None]:
    """What `decode` makes of a file's bytes, and what was not followed on the way, if anything was not."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise DataError(f"it is {width} x {height}: more than {MAX_PIXELS:,} pixels")
            image.load()
            # A PNG begins with its header, whose ninth value is the number of bits in a sample.
            return to_srgb(apply_exif_orientation(image), data[24] if image.format == "PNG" else 8)
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"it promises more than {MAX_PIXELS:,} pixels") from error
    except Image.UnidentifiedImageError as error:
        raise DataError("it is not a JPEG, PNG or WebP picture; convert it to one of them") from error
    # Decoders answer broken files with almost any exception (struct.error, SyntaxError, zlib.error, ...): the
    # file is at fault whichever it is, and the picture is turned away with its words.
    except Exception as error:
        raise DataError(f"it cannot be decoded: {error}") from error


def apply_exif_orientation(image: Image.Image) -> Image.Image:
    """Turn a picture as its EXIF orientation says; broken EXIF data is left alone."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the pixels are whole: only a tag about them is not
        return image


def scale_and_crop(image: Image.Image, size: tuple[int, int]) -> UInt8[np.ndarray, "height width 3"]:
    """Scale a picture to cover (height, width) and crop its centre."""
    height, width = size
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    return np.array(image, dtype=np.uint8)


def normalize_pixels(pixels: UInt8[np.ndarray, "height width 3"]) -> Float[np.ndarray, "3 height width"]:
    """Bytes to floats in [-1, 1], channels first: what a vision model's autoencoder reads."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype(np.float32) / 127.5 - 1.0


def forbid_decompression_bombs() -> None:
    """Turn Pillow's warning about huge pictures into an error, as its documentation advises."""
    warnings.simplefilter("error", Image.DecompressionBombWarning)
