"""Pairs from a data set on the Hugging Face hub, or from a folder that `datasets` saved.

    data: {kind: hub, path: lambdalabs/naruto-blip-captions, split: train}

Needs the extra: pip install 'lavibridge[hub]'. The library downloads the data set and maps it into memory;
lavibridge decodes the pictures from their bytes, with the same checks as any others.
"""

from importlib.util import find_spec
from typing import Any

from lavibridge.core.config import Changeable
from lavibridge.core.errors import DataError
from lavibridge.core.hub import local_files_only
from lavibridge.core.paths import expand_path
from lavibridge.data.pictures.columns import (
    CAPTION_COLUMNS,
    IMAGE_COLUMNS,
    captions_of_column_value,
    choose_column,
)
from lavibridge.data.pictures.decoding import check_picture_bytes
from lavibridge.data.pictures.image_table import ImageTableEntry
from lavibridge.data.pictures.indexed import IndexedPictures
from lavibridge.data.pictures.rejected import RejectedPictures

_ROWS = 1000


class Hub(IndexedPictures):
    """Pictures and captions of a data set that the library `datasets` reads."""

    class Config(IndexedPictures.Config):
        """Settings of `data.kind: hub`."""

        path: Changeable[str]
        """The data set's id on the hub, or a folder that `save_to_disk` wrote."""
        name: str | None = None
        """Its configuration, if it has several."""
        revision: str | None = None
        """Branch, tag or commit; name a commit to make a run exactly repeatable."""
        split: str = "train"
        """Which split to read."""
        image: str | None = None
        """Column of the pictures; by default a usual name (image, jpg, ...)."""
        caption: str | None = None
        """Column of the captions; by default a usual name (caption, text, ...)."""

    config: "Hub.Config"

    def __init__(self, config: "Hub.Config", rejected: RejectedPictures) -> None:
        rows = _load_rows(config)
        columns = list(rows.column_names)
        self.image = choose_column(config.image, columns, IMAGE_COLUMNS, "image", config.path)
        self.caption = choose_column(config.caption, columns, CAPTION_COLUMNS, "caption", config.path)
        self.rows = _without_decoding(rows, self.image, config.path)
        super().__init__(config, rejected)

    def describe(self) -> str:
        return f"{self.config.path} ({self.config.split})"

    def stamps(self) -> dict[str, Any]:
        """Return the library's own fingerprint of the rows, and their number."""
        return {"fingerprint": str(self.rows._fingerprint), "rows": len(self.rows)}

    def listing(self, rejected: RejectedPictures) -> list[ImageTableEntry]:
        found = []
        captions = self.rows.select_columns([self.caption])
        for start in range(0, len(captions), _ROWS):
            for number, cell in enumerate(captions[start : start + _ROWS][self.caption], start=start):
                try:
                    found.append(
                        ImageTableEntry(
                            name=f"row {number}", captions=tuple(captions_of_column_value(cell)), first=number
                        )
                    )
                except DataError as error:
                    rejected.add(f"row {number}", str(error))
        return found

    def stamp(self, entry: ImageTableEntry) -> tuple[int, int]:
        """Identify the rows; `stamps` says whether they have changed."""
        return int(str(self.rows._fingerprint), 16) >> 1, len(self.rows)

    def read(self, entry: ImageTableEntry) -> bytes:
        cell = self.rows[entry.first][self.image]
        data = cell["bytes"] if cell is not None else None
        if data is None:
            raise DataError("its cell holds no picture")
        check_picture_bytes(len(data))
        return bytes(data)


def _load_rows(config: "Hub.Config") -> Any:
    """Load the rows. Raises DataError if the library or the data set is missing."""
    if find_spec("datasets") is None:
        raise DataError("data.kind: hub needs the library `datasets`: pip install 'lavibridge[hub]'")
    import datasets

    datasets.disable_progress_bars()
    folder = expand_path(config.path)
    try:
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            found = datasets.load_from_disk(str(folder.absolute()))
            return found[config.split] if isinstance(found, dict) else found
        with local_files_only(folder):
            return datasets.load_dataset(
                config.path, config.name, revision=config.revision, split=config.split
            )
    # The library raises exceptions of its many readers; this error adds the name of the data set.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(
            f"the data set '{config.path}' (split {config.split}) cannot be loaded: {reason}"
        ) from error


def _without_decoding(rows: Any, column: str, where: str) -> Any:
    """Return the rows with pictures as undecoded bytes."""
    import datasets

    if not isinstance(rows.features[column], datasets.Image):
        raise DataError(f"{where}: the column '{column}' holds {rows.features[column]}, not pictures")
    return rows.cast_column(column, datasets.Image(decode=False))
