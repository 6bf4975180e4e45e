"""A picture as a data URI that tells nothing but its pixels: WebP, without metadata, whatever it was before.

Small pictures, such as those of the miniature world, keep every bit; larger ones lose a little, all alike.
"""

import base64
import io

from PIL import Image

LOSSLESS = 256 * 256
"""Pixels up to which nothing is lost."""
QUALITY = 92


def data_uri(picture: Image.Image, side: int) -> str:
    """The picture, made smaller where its longer side is above `side`."""
    shown = Image.new("RGB", picture.size)
    shown.paste(picture)  # pixels alone: no text, profile or camera data goes along
    shown.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    shown.save(buffer, "WEBP", lossless=shown.width * shown.height <= LOSSLESS, quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
