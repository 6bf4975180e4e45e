"""`lavi pivot`: models that meet in one space, so that every pair of them draws at once."""

from pathlib import Path

import typer

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
RESUME = typer.Option(False, "--resume", help="Continue from where it was stopped.")
CATEGORY = typer.Option("all", "--category", "-c", help="Show the scores of this category.")

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Add each model once, and draw with every pair.\n\n"
    "\b\n"
    "lavi pivot create mini-llama_mini-sd_pivot --out pivots/mini\n"
    "lavi pivot add-language pivots/mini mini-bert\n"
    "lavi pivot add-vision pivots/mini mini-pixart\n"
    'lavi generate mini-bert+mini-pixart "a red circle" --pivot pivots/mini',
)


@app.command()
def create(
    recipe: str = RECIPE,
    settings: list[str] | None = SETTINGS,
    captions: Path | None = CAPTIONS,
    out: Path = OUT,
    resume: bool = RESUME,
) -> None:
    """Align a first language model and a first vision model, which defines the space.

    \b
    lavi pivot create mini-llama_mini-sd_pivot --out pivots/mini
    lavi pivot create mini-llama_mini-sd_pivot connector.slots=64 training.align.steps=1500 --out pivots/large

    Needs captions, no pictures. The folder is printed on stdout.
    """
    from lavibridge.training.pivot.alignment import create as create_pivot
    from lavibridge.training.pivot.recipes import first_recipe

    print(create_pivot(first_recipe(recipe, settings or [], captions), out, resume=resume).folder)


@app.command("add-language")
def add_language(
    folder: Path = FOLDER,
    model: str = MODEL,
    settings: list[str] | None = SETTINGS,
    captions: Path | None = CAPTIONS,
    name: str | None = NAME,
) -> None:
    """Add a language model: it learns to fill the slots as the first one does.

    \b
    lavi pivot add-language pivots/mini mini-bert
    lavi pivot add-language pivots/mini HuggingFaceTB/SmolLM2-135M "connector.read={layer: 10}"

    Takes seconds beyond reading the captions, and loads no vision model. Every vision model of the pivot
    draws with it at once. The folder of the half is printed on stdout.
    """
    from lavibridge.pivot.folder import read_pivot
    from lavibridge.training.pivot.recipes import added_recipe, name_of
    from lavibridge.training.pivot.regression import add_language as add

    pivot = read_pivot(folder)
    recipe = added_recipe(pivot, "language", model, settings or [], captions)
    print(add(pivot, recipe, name or name_of(model)))


@app.command("add-vision")
def add_vision(
    folder: Path = FOLDER,
    model: str = MODEL,
    settings: list[str] | None = SETTINGS,
    captions: Path | None = CAPTIONS,
    name: str | None = NAME,
    resume: bool = RESUME,
) -> None:
    """Add a vision model: it learns to read the slots in place of its own text encoder.

    \b
    lavi pivot add-vision pivots/mini mini-pixart
    lavi pivot add-vision pivots/mini mini-ldm training.align.steps=1000 --resume

    Every language model of the pivot draws with it at once. The folder of the half is printed on stdout.
    """
    from lavibridge.pivot.folder import read_pivot
    from lavibridge.training.pivot.alignment import add_vision as add
    from lavibridge.training.pivot.recipes import added_recipe, name_of

    pivot = read_pivot(folder)
    recipe = added_recipe(pivot, "vision", model, settings or [], captions)
    print(add(pivot, recipe, name or name_of(model), resume=resume))


@app.command()
def show(folder: Path = FOLDER, category: str = CATEGORY) -> None:
    """List the halves of a pivot, and the score of each pair.

    \b
    lavi pivot show pivots/mini
    lavi pivot show pivots/mini --category two

    The fvu is the fraction of variance that stayed unexplained on held-out captions: of the slots for a
    language half, of what the vision model's own text encoder makes for a vision half. Any language half goes
    with any vision half; the table of pairs has the share of prompts drawn right where
    `lavi evaluate LANGUAGE+VISION --pivot PIVOT` has measured it. A ~ marks a prediction for a pair that was
    never measured, from those that were; a dash, a pair that they say nothing about.
    """
    from lavibridge.cli.pivot_tables import half_rows, pair_notes, pair_rows, print_table
    from lavibridge.core.config import did_you_mean
    from lavibridge.evaluation.pivot_scores import ALL, pivot_scores
    from lavibridge.pivot.folder import read_pivot
    from lavibridge.world.captions import CATEGORIES as KNOWN

    if category not in (ALL, *KNOWN):
        raise typer.BadParameter(f"no category '{category}'{did_you_mean(category, (ALL, *KNOWN))}")
    pivot = read_pivot(folder)
    description = pivot.description
    scores = pivot_scores(pivot, SUITE, SUITE, category)
    print(f"pivot {description.id}: {description.slots} slots of {description.width} numbers\n")
    print_table(half_rows(pivot))
    print()
    print_table(pair_rows(pivot, scores, f"suite {SUITE}, {category}"))
    for line in pair_notes(scores):
        print(line)
