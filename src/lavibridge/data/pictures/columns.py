"""Finds the image column and the caption column of a table by their usual names."""

from collections.abc import Sequence
from typing import Any

from lavibridge.core.errors import DataError, did_you_mean

IMAGE_COLUMNS = (
    "image_path",
    "image",
    "path",
    "file",
    "file_name",
    "filename",
    "filepath",
    "img",
    "jpg",
    "png",
)
CAPTION_COLUMNS = ("caption", "captions", "text", "texts", "prompt", "description", "txt")


def choose_column(
    configured: str | None, known: Sequence[str], usual: Sequence[str], what: str, where: str
) -> str:
    """Return the configured column, or the only one with a usual name. Raises DataError if unclear."""
    if configured is not None:
        if configured not in known:
            raise DataError(
                f"{where} has no column '{configured}'{did_you_mean(configured, tuple(known))} "
                f"(data.{what}; columns: {', '.join(known)})"
            )
        return configured
    found = [name for name in known if name.lower() in usual]
    if len(found) != 1:
        problem = (
            f"several could be the {what} ({', '.join(found)})"
            if found
            else f"none has a usual name of the {what}"
        )
        raise DataError(f"{where} has the columns {', '.join(known)}: {problem}; set data.{what}")
    return found[0]


def captions_of_column_value(value: Any) -> list[str]:
    """Return the captions in one cell: a text, or a list of texts. Raises DataError for other values."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        raise DataError("its caption is missing" if value is None else "its caption is not text")
    found = [text.strip() for text in value if text.strip()]
    if not found:
        raise DataError("its caption is empty")
    return found
