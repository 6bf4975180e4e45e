"""Makes a contact sheet: one image that shows many, with labels.

        column   column
prompt  image    image
prompt  image    image
"""

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

from PIL import Image, ImageDraw, ImageFont, ImageOps

from lavibridge.generation.image_files import save_png

_INK, _PAPER = (40, 40, 40), (255, 255, 255)
_GAP, _LABEL, _TEXT = 8, 220, 13
_SMALLEST, _LARGEST = 64, 512
"""The size of a grid's images in pixels."""


def contact_sheet(
    grid: Sequence[Sequence[Image.Image]], rows: Sequence[str], columns: Sequence[str], cell: int = 128
) -> Image.Image:
    """Arrange ``grid`` as one image: a row for each label in ``rows``, a column for each in ``columns``.

    Scales every image into ``cell`` x ``cell`` pixels; smaller ones by nearest neighbour, so that they stay
    sharp. Raises ValueError if the grid and the labels do not match.
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


def write_grid(path: Path, images: Sequence[Image.Image], rows: Sequence[str]) -> None:
    """Write images as one PNG: equally many for each row, in order, in columns with their numbers."""
    count = len(images) // len(rows)
    columns = [str(number) for number in range(1, count + 1)] if count > 1 else [""]
    lines = [images[start : start + count] for start in range(0, len(images), count)]
    side = min(_LARGEST, max(side for image in images for side in image.size))
    save_png(path, contact_sheet(lines, rows, columns, max(_SMALLEST, side)))


def _fold(text: str, width: int) -> list[str]:
    """Lines of a label that fit into ``width`` pixels."""
    return wrap(text, max(8, width // 7)) or [""]


def _scaled(image: Image.Image, cell: int) -> Image.Image:
    """Scale an image into a square cell; paper fills what its proportions leave free."""
    enlarges = max(image.size) < cell
    method = Image.Resampling.NEAREST if enlarges else Image.Resampling.LANCZOS
    return ImageOps.pad(image.convert("RGB"), (cell, cell), method, _PAPER)
