"""`lavi data`: check training data before training."""

import typer

app = typer.Typer(
    help="Training data: check every picture once, before a run.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_RECIPE = typer.Argument(metavar="RECIPE", help="A recipe's name (see `lavi show`) or a path to a YAML file.")
_SETTINGS = typer.Argument(None, metavar="[key.path=value]...", help="Fields of the recipe to change.")


@app.callback()
def data() -> None:
    """Training data."""


@app.command()
def check(recipe: str = _RECIPE, settings: list[str] | None = _SETTINGS) -> None:
    """Read every picture of a recipe's data once and store the result in an index.

    \b
    lavi data check mini-llama_mini-sd_lavi data.kind=folder data.path=pictures
    lavi data check my_recipe.yaml

    Training then opens the data at once and uses only what passed. At the next check only files that have
    changed are read; a check that was broken off goes on where it stopped. What cannot be used is listed with
    its reason in rejected.jsonl, and the exit code is 1 where that is too much to train.
    """
    from lavibridge.data.base import Dataset
    from lavibridge.data.mixture import Mixture, flatten_parts
    from lavibridge.data.pictures.indexed import IndexedPictures
    from lavibridge.data.pictures.recheck import recheck
    from lavibridge.recipes.recipe import load_recipe
    from lavibridge.recipes.sections import kind_of_section

    section = load_recipe(recipe, settings or []).data
    assert isinstance(section, Dataset.Config)
    parts = [(kind_of_section(section), section)]
    if isinstance(section, Mixture.Config):
        parts = flatten_parts(section.parts)
    for kind, config in parts:
        dataset = recheck(kind, config)
        if not isinstance(dataset, IndexedPictures):
            print(f"{kind}: {len(dataset):,} pictures, drawn when they are asked for: nothing to check")
            continue
        turned_away = len(dataset.rejected.entries)
        print(f"{dataset.where}: {len(dataset):,} pictures can be used, {turned_away:,} rejected")
        print(f"index: {dataset.index.folder}")
        if dataset.rejected.warnings:
            print(f"{len(dataset.rejected.warnings):,} more files are named in the list and not counted")
        if dataset.rejected.all:
            print(f"rejected: {dataset.index.rejected}")
