"""Pictures on disk: a PNG with its prompt and seed inside, and the contact sheet.

        column   column
prompt  picture  picture
prompt  picture  picture
"""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Literal

from PIL import ExifTags, Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from lavibridge.core.files import write_atomic

Format = Literal["png", "jpeg", "webp"]
_INK, _PAPER = (40, 40, 40), (255, 255, 255)
_GAP, _LABEL, _TEXT = 8, 220, 13


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


def encode_picture(
    image: Image.Image, format: Format, compression: int, text: Mapping[str, str] | None = None
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


def contact_sheet(
    grid: Sequence[Sequence[Image.Image]], rows: Sequence[str], columns: Sequence[str], cell: int = 128
) -> Image.Image:
    """One picture of many: a row for each label in ``rows``, a column for each in ``columns``.

    Every picture is scaled to ``cell`` pixels; small ones by whole pixels, so that they stay sharp.
    """
    if len(grid) != len(rows) or any(len(line) != len(columns) for line in grid):
        raise ValueError(f"the grid is not {len(rows)} rows by {len(columns)} columns")
    font = ImageFont.load_default(size=_TEXT)
    head = 2 * _GAP + _TEXT * max((len(_fold(text, cell)) for text in columns), default=1)
    size = (_LABEL + len(columns) * (cell + _GAP) + _GAP, head + len(rows) * (cell + _GAP))
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, text in enumerate(columns):
        left = _LABEL + _GAP + index * (cell + _GAP)
        draw.multiline_text((left, _GAP), "\n".join(_fold(text, cell)), fill=_INK, font=font, spacing=2)
    for index, (text, line) in enumerate(zip(rows, grid, strict=True)):
        top = head + index * (cell + _GAP)
        lines = _fold(text, _LABEL - 2 * _GAP)[: cell // (_TEXT + 4)]
        draw.multiline_text((_GAP, top), "\n".join(lines), fill=_INK, font=font, spacing=2)
        for place, image in enumerate(line):
            sheet.paste(_scaled(image, cell), (_LABEL + _GAP + place * (cell + _GAP), top))
    return sheet


def _fold(text: str, width: int) -> list[str]:
    """Lines of a label that fit into ``width`` pixels."""
    return wrap(text, max(8, width // 7)) or [""]


def _scaled(image: Image.Image, cell: int) -> Image.Image:
    enlarges = max(image.size) < cell
    method = Image.Resampling.NEAREST if enlarges else Image.Resampling.LANCZOS
    return image.convert("RGB").resize((cell, cell), method)
