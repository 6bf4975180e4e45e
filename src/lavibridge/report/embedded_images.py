"""Pictures inside the page, as data URIs: small ones as they are, large ones scaled down.

at most 256 pixels a side    the PNG itself, shown by whole pixels
larger                       WebP of 256 pixels; sheets and previews, which hold text, up to 1,600
"""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lavibridge.core.errors import DataError, RunError
from lavibridge.data.pictures.decoding import decode, read_file

SIDE = 256
"""Pixels of the longer side of a drawn picture on the page."""
SHEET_SIDE = 1600
"""The same of a contact sheet or a preview."""
PIXELS = 128
"""Pixels of a side up to which a picture is enlarged without blurring."""


@dataclass(frozen=True, kw_only=True)
class EmbeddedImage:
    """A picture inside the page."""

    source: str
    """Data URI."""
    told: str
    """The prompt or description that the file carries."""
    width: int
    height: int

    @property
    def is_small(self) -> bool:
        """Whether its pixels are to be seen as squares."""
        return max(self.width, self.height) <= PIXELS


def embed_image(path: Path, side: int = SIDE) -> EmbeddedImage:
    """A picture file as part of the page; RunError where it is damaged."""
    try:
        data = read_file(path)
        image = decode(data)
    except DataError as error:
        raise RunError(f"{path}: {error}; delete it, and the report is made without it") from None
    told = _told(data)
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
    return EmbeddedImage(source=source, told=told, width=width, height=height)


def _told(data: bytes) -> str:
    with Image.open(io.BytesIO(data)) as image:
        return "; ".join(str(image.info[key]) for key in ("description", "prompt") if image.info.get(key))
