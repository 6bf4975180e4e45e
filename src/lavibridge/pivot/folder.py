"""Reads and writes the folder of a pivot.

pivot.json                  the identity and size of the space; written last
recipe.yaml                 the recipe of the first two halves; later ones use its data and settings
language/NAME/half.json     a language half, named after its model (`half.py`)
vision/NAME/half.json       a vision half
image_encoder/NAME/         an image-encoder half
evaluation/PAIR/SUITE/      what `lavi evaluate` has measured of a pair, LANGUAGE+VISION
"""

import shutil
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal, TypeVar, get_args

from lavibridge import __version__
from lavibridge.core.config import Config, validate_config
from lavibridge.core.errors import RecipeError, RunError, did_you_mean
from lavibridge.core.files import read_json, require_empty_folder, write_json
from lavibridge.core.paths import expand_path, models_folder

FORMAT = 1
"""The format of pivot.json and half.json."""
PIVOT, HALF, RECIPE = "pivot.json", "half.json", "recipe.yaml"
Side = Literal["language", "vision", "image_encoder"]
"""What a half belongs to: the package of its model's kinds, and its folder in the pivot."""
SIDES: tuple[Side, ...] = get_args(Side)
DescriptionT = TypeVar("DescriptionT", bound=Config)


class PivotDescription(Config):
    """The content of pivot.json."""

    format: int
    """The `FORMAT` with which it was written."""
    lavibridge: str
    """The version of lavibridge that wrote it."""
    id: str
    """Hash of the first two halves; every half of the pivot records it."""
    slots: int
    """Number of rows of Z."""
    width: int
    """Width of each row of Z."""
    reference: str
    """The first language half, which others learn to reproduce."""


@dataclass(frozen=True, kw_only=True)
class PivotFolder:
    """A pivot on disk."""

    folder: Path
    description: PivotDescription

    def names(self, side: Side) -> tuple[str, ...]:
        """Return the names of the halves of a side, sorted."""
        return tuple(sorted(path.parent.name for path in (self.folder / side).glob(f"*/{HALF}")))

    def place(self, side: Side, name: str) -> Path:
        """Return the folder of a half, whether it exists or not."""
        return self.folder / side / name

    def evaluation(self, language: str, vision: str) -> Path:
        """Return the folder of a pair's results, by suite, whether it exists or not.

        It lies in the pivot, or in `runs` for the pivot in the package, which nobody writes into.
        """
        is_shipped = self.folder.resolve() == shipped_pivot_folder().resolve()
        return (Path("runs") if is_shipped else self.folder) / "evaluation" / f"{language}+{vision}"

    def need(self, side: Side, name: str) -> Path:
        """Return the folder of a half. Raises RunError, which lists the existing halves, if there is none."""
        if name not in self.names(side):
            raise RunError(
                f"{self.folder} has no {side} half '{name}'{did_you_mean(name, self.names(side))} "
                f"({side} halves: {', '.join(self.names(side)) or 'none'}); "
                f"add one with `{add_command(side)}`"
            )
        return self.place(side, name)


def add_command(side: Side) -> str:
    """Return the command that adds a half."""
    return f"lavi pivot add-{side.replace('_', '-')}"


def read_pivot(source: str | PathLike[str]) -> PivotFolder:
    """Read a pivot's description. Raises RunError if the folder holds none."""
    folder = expand_path(source)
    if not folder.is_dir():
        raise RunError(f"there is no folder {folder}: create a pivot with `lavi pivot create`")
    if not (folder / PIVOT).is_file():
        raise RunError(f"{folder} is not a pivot: it has no {PIVOT}; create one with `lavi pivot create`")
    return PivotFolder(folder=folder, description=read_description(PivotDescription, folder / PIVOT))


def write_pivot(folder: Path, id: str, slots: int, width: int, reference: str) -> PivotFolder:
    """Write a pivot's description, which marks the folder as a pivot."""
    description = PivotDescription(
        format=FORMAT, lavibridge=__version__, id=id, slots=slots, width=width, reference=reference
    )
    write_json(folder / PIVOT, description.model_dump())
    return PivotFolder(folder=folder, description=description)


def copy_pivot(pivot: PivotFolder, folder: Path) -> PivotFolder:
    """Copy a pivot's halves and recipe into a folder; halves that the folder has already stay as they are.

    Raises RunError if the folder holds another pivot, or anything else.
    """
    if (folder / PIVOT).is_file():
        there = read_pivot(folder)
        if there.description.id != pivot.description.id:
            raise RunError(f"{folder} is another pivot than {pivot.folder}: choose another --out")
    elif folder.exists():
        require_empty_folder(folder)
    for side in SIDES:
        for name in pivot.names(side):
            if not (folder / side / name / HALF).is_file():
                shutil.copytree(pivot.place(side, name), folder / side / name, dirs_exist_ok=True)
    shutil.copyfile(pivot.folder / RECIPE, folder / RECIPE)
    shutil.copyfile(pivot.folder / PIVOT, folder / PIVOT)
    return read_pivot(folder)


def shipped_pivot_folder() -> Path:
    """Return the folder of the pivot in the package, whether this version ships one or not."""
    return models_folder().parent / "pivot"


def _shipped_pivot() -> Path:
    """Return the folder of the pivot in the package. Raises RunError if this version ships none."""
    folder = shipped_pivot_folder()
    if not (folder / PIVOT).is_file():
        raise RunError("this version ships no pivot: create one with `lavi pivot create`, and give --pivot")
    return folder


def pivot_and_pair(source: str, pivot: Path | None) -> tuple[Path, str, str] | None:
    """Return pivot, language model and vision model of ``LANGUAGE+VISION``; None if it is not such a pair.

    If ``pivot`` is None, this is the pivot in the package. Raises RecipeError if ``pivot`` is given without a
    pair.
    """
    language, _, vision = source.partition("+")
    is_pair = bool(language and vision) and "+" not in vision
    if pivot is None and (not is_pair or expand_path(source).exists()):
        return None
    if not is_pair:
        raise RecipeError(
            f"--pivot needs a pair such as mini-bert+mini-pixart, found '{source}': join the names of a "
            "language model and a vision model with a +"
        )
    return _shipped_pivot() if pivot is None else expand_path(pivot), language, vision


def read_description(model: type[DescriptionT], path: Path) -> DescriptionT:
    """Read pivot.json or half.json. Raises RunError if it is damaged or of another format."""
    content = read_json(path)
    found = content if isinstance(content, dict) else {}
    if "format" in found and found["format"] != FORMAT:
        raise RunError(
            f"{path} has format {found['format']!r} of lavibridge {found.get('lavibridge')}, but this "
            f"version reads only format {FORMAT}: use the version that wrote it"
        )
    try:
        return validate_config(model, found, "")
    except RecipeError as error:
        first = str(error).partition("\n")[0]
        raise RunError(f"{path} is damaged ({first}): use another copy") from error
