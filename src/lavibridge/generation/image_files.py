"""Picture files: PNG, JPEG and WebP with the prompt and the seed in their metadata."""

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
    """Write a picture, whole or not at all, with named texts (prompt, seed, ...) that stay with the file."""
    write_atomic(path, encode_png(image, text))


def encode_png(image: Image.Image, text: Mapping[str, str] | None = None) -> bytes:
    """A picture as the bytes of a PNG, with named texts in it."""
    metadata = PngInfo()
    for key, value in (text or {}).items():
        metadata.add_itxt(key, value)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=metadata)
    return buffer.getvalue()


def encode_image(
    image: Image.Image, format: ImageFormat, compression: int, text: Mapping[str, str] | None = None
) -> bytes:
    """A picture as the bytes of a file; of JPEG and WebP, ``compression`` from 0 to 100 is the best."""
    if format == "png":
        return encode_png(image, text)
    exif = Image.Exif()
    if text:
        exif[ExifTags.Base.ImageDescription] = json.dumps(dict(text))  # ASCII, as EXIF has it
    buffer = io.BytesIO()
    image.save(buffer, format=format.upper(), quality=max(1, compression), exif=exif)
    return buffer.getvalue()
