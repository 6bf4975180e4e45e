"""`lavi pivot`: adds models to a shared space, so that every pair of them generates without training."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from lavibridge.pivot.folder import PivotFolder

Row = tuple[str, ...]
SUITE = "world"
"""The suite whose results `show` lists, and its metric."""
RECIPE = typer.Argument(metavar="RECIPE", help="A recipe with the connector `pivot`: a name or a YAML file.")
FOLDER = typer.Argument(metavar="PIVOT", help="The folder of a pivot.")
MODEL = typer.Argument(metavar="MODEL", help="A shipped model's name, a folder or a hub id.")
SETTINGS = typer.Argument(None, metavar="[key.path=value]...", help="Fields of the recipe to change.")
CAPTIONS = typer.Option(
    None,
    "--captions",
    metavar="FILE",
    help="Captions, one per line.  [default: those of the recipe's data]",
)
OUT = typer.Option(..., "--out", "-o", metavar="FOLDER", help="Folder of the new pivot.")
NAME = typer.Option(
    None, "--name", metavar="NAME", help="Name of the half.  [default: the last part of the model's source]"
)
RESUME = typer.Option(False, "--resume", help="Continue after an interruption.")

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Add each model once, and generate images with every pair.\n\n"
    "\b\n"
    "lavi pivot create mini-llama_mini-sd_pivot --out pivots/mini\n"
    "lavi pivot add-language pivots/mini mini-bert\n"
    "lavi pivot add-vision pivots/mini mini-pixart\n"
    'lavi generate mini-bert+mini-pixart "a red circle" --pivot pivots/mini',
)


@app.command("create")
def _create(
    recipe: str = RECIPE,
    settings: list[str] | None = SETTINGS,
    captions: Path | None = CAPTIONS,
    out: Path = OUT,
    resume: bool = RESUME,
) -> None:
    """Create a pivot: align a first language model and a first vision model, which define its space.

    \b
    lavi pivot create mini-llama_mini-sd_pivot --out pivots/mini
    lavi pivot create mini-llama_mini-sd_pivot connector.slots=64 training.align.steps=1500 --out pivots/large

    Needs captions but no images. Prints the folder on stdout.
    """
    from lavibridge.training.pivot.alignment import create as create_pivot
    from lavibridge.training.pivot.recipes import first_recipe

    print(create_pivot(first_recipe(recipe, settings or [], captions), out, resume=resume).folder)


@app.command("add-language")
def _add_language(
    folder: Path = FOLDER,
    model: str = MODEL,
    settings: list[str] | None = SETTINGS,
    captions: Path | None = CAPTIONS,
    name: str | None = NAME,
) -> None:
    """Add a language model: its half learns to fill the slots as the first one does.

    \b
    lavi pivot add-language pivots/mini mini-bert
    lavi pivot add-language pivots/mini HuggingFaceTB/SmolLM2-135M "connector.read={layer: 10}"

    Takes seconds after reading the captions, and loads no vision model. The new model then works with every
    vision model of the pivot. Prints the folder of the half on stdout.
    """
    from lavibridge.pivot.folder import read_pivot
    from lavibridge.training.pivot.recipes import added_recipe, name_of
    from lavibridge.training.pivot.regression import add_language as add

    pivot = read_pivot(folder)
    recipe = added_recipe(pivot, "language", model, settings or [], captions)
    print(add(pivot, recipe, name or name_of(model)))


@app.command("add-vision")
def _add_vision(
    folder: Path = FOLDER,
    model: str = MODEL,
    settings: list[str] | None = SETTINGS,
    captions: Path | None = CAPTIONS,
    name: str | None = NAME,
    resume: bool = RESUME,
) -> None:
    """Add a vision model: its half learns to replace the model's own text encoder.

    \b
    lavi pivot add-vision pivots/mini mini-pixart
    lavi pivot add-vision pivots/mini mini-ldm training.align.steps=1000 --resume

    The new model then works with every language model of the pivot. Prints the folder of the half on stdout.
    """
    from lavibridge.pivot.folder import read_pivot
    from lavibridge.training.pivot.alignment import add_vision as add
    from lavibridge.training.pivot.recipes import added_recipe, name_of

    pivot = read_pivot(folder)
    recipe = added_recipe(pivot, "vision", model, settings or [], captions)
    print(add(pivot, recipe, name or name_of(model), resume=resume))


@app.command("show")
def _show(folder: Path = FOLDER) -> None:
    """List the halves of a pivot, and the measured score of each pair.

    \b
    lavi pivot show pivots/mini

    The fvu is the fraction of variance unexplained on held-out captions: of the slots for a language half, of
    the teacher's outputs for a vision half. You can combine any language half with any vision half. The table
    of pairs has the share of correctly generated prompts if `lavi evaluate LANGUAGE+VISION --pivot PIVOT` has
    measured it.
    """
    from lavibridge.pivot.folder import read_pivot

    pivot = read_pivot(folder)
    description = pivot.description
    print(f"pivot {description.id}: {description.slots} slots of {description.width} numbers\n")
    _print_table([("half", "model", "fvu", "n", "learned from"), *_halves(pivot)])
    print()
    _print_table(_pairs(pivot))


def _halves(pivot: "PivotFolder") -> Iterator[Row]:
    from lavibridge.pivot.half import read_half

    for side in ("language", "vision"):
        for name in pivot.names(side):
            half = read_half(pivot, side, name).description
            learning = half.learning
            fvu = "unknown" if learning.fvu is None else f"{learning.fvu:.1%}"
            learned = f"{learning.teacher}, {learning.captions:,} captions"
            yield f"{side}/{name}", str(half.model["source"]), fvu, str(learning.held_out), learned


def _pairs(pivot: "PivotFolder") -> Iterator[Row]:
    """Each pair's share of correctly generated prompts, with its n; a dash if it was not measured."""
    from lavibridge.core.files import read_json

    visions = pivot.names("vision")
    yield f"suite {SUITE}", *visions
    for language in pivot.names("language"):
        cells = []
        for vision in visions:
            results = pivot.folder / "evaluation" / f"{language}+{vision}" / SUITE / "results.json"
            found = read_json(results)["metrics"].get(SUITE, {}).get("all") if results.is_file() else None
            cells.append("-" if found is None else f"{found['mean']:.1%} (n {found['n']})")
        yield language, *cells


def _print_table(rows: Iterable[Row]) -> None:
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
