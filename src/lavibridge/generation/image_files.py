"""Image files: PNG, JPEG and WebP with the prompt and the seed in their metadata."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from lavibridge.core.files import write_atomic

ImageFormat = Literal["png", "jpeg", "webp"]


def save_png(path: Path, image: Image.Image, text: Mapping[str, str] | None = None) -> None:
    """Write an image atomically, with named texts (prompt, seed, ...) in its metadata."""
    write_atomic(path, encode_png(image, text))


def encode_png(image: Image.Image, text: Mapping[str, str] | None = None) -> bytes:
    """Encode an image as PNG, with named texts in its metadata."""
    metadata = PngInfo()
    for key, value in (text or {}).items():
        metadata.add_itxt(key, value)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=metadata)
    return buffer.getvalue()


def encode_image(
    image: Image.Image, format: ImageFormat, compression: int, text: Mapping[str, str] | None = None
) -> bytes:
    """Encode an image as the bytes of a file.

    ``compression`` is the quality of JPEG and WebP, from 0 (smallest file) to 100 (best image); PNG, which
    is lossless, ignores it. PNG holds ``text`` as iTXt, the other formats as JSON in the EXIF description.
    """
    if format == "png":
        return encode_png(image, text)
    exif = Image.Exif()
    if text:
        exif[ExifTags.Base.ImageDescription] = json.dumps(dict(text))  # EXIF takes ASCII
    buffer = io.BytesIO()
    image.save(buffer, format=format.upper(), quality=max(1, compression), exif=exif)
    return buffer.getvalue()
