"""Embeds images in the page as data URIs, and scales down large ones.

at most 256 pixels a side    the PNG itself, scaled by whole pixels
larger                       WebP of 256 pixels; 1,600 for sheets and previews, which hold text
"""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lavibridge.core.errors import DataError, RunError
from lavibridge.data.pictures.decoding import decode_picture, read_picture_bytes

EMBEDDED_SIDE = 256
"""Pixels of the longer side of a generated image on the page."""
EMBEDDED_SHEET_SIDE = 1600
"""The same for a contact sheet or a preview."""
_PIXELS = 128
"""Maximum pixels per side of a picture that the page enlarges without blurring."""


@dataclass(frozen=True, kw_only=True)
class EmbeddedImage:
    """A picture embedded in the page."""

    source: str
    """Data URI."""
    description: str
    """The prompt or description in the file's metadata."""
    width: int
    height: int

    @property
    def is_small(self) -> bool:
        """Whether the page should show its pixels as squares."""
        return max(self.width, self.height) <= _PIXELS


def embed_image(path: Path, side: int = EMBEDDED_SIDE) -> EmbeddedImage:
    """Embed an image file. Raises RunError if it is damaged."""
    try:
        data = read_picture_bytes(path)
        image = decode_picture(data)
    except DataError as error:
        raise RunError(f"{path}: {error}; delete it to make the report without it") from None
    description = _description(data)
    width, height = image.size
    kind = "png"
    if max(width, height) > side:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=85)
        data, kind = buffer.getvalue(), "webp"
        width, height = image.size
    elif not data.startswith(b"\x89PNG"):
        kind = "webp" if data[8:12] == b"WEBP" else "jpeg"
    source = f"data:image/{kind};base64," + base64.b64encode(data).decode("ascii")
    return EmbeddedImage(source=source, description=description, width=width, height=height)


def _description(data: bytes) -> str:
    with Image.open(io.BytesIO(data)) as image:
        return "; ".join(str(image.info[key]) for key in ("description", "prompt") if image.info.get(key))
