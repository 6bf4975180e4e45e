"""Encodes a picture as a data URI of its pixels alone: WebP without metadata, whatever the source.

Small pictures, such as those of the miniature world, are lossless; larger ones share one lossy quality.
"""

import base64
import io

from PIL import Image

_LOSSLESS = 256 * 256
"""Maximum pixels of a lossless picture."""
_QUALITY = 92


def data_uri(picture: Image.Image, side: int) -> str:
    """Encode the picture, scaled down if its longer side exceeds `side`."""
    shown = Image.new("RGB", picture.size)
    shown.paste(picture)  # copies pixels only: no text, profile or camera data
    shown.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    shown.save(buffer, "WEBP", lossless=shown.width * shown.height <= _LOSSLESS, quality=_QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
