"""`lavi data`: checks training data before training."""

import typer

app = typer.Typer(
    help="Check every picture of training data once, before a run.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_RECIPE = typer.Argument(metavar="RECIPE", help="A recipe's name (see `lavi show`) or a path to a YAML file.")
_SETTINGS = typer.Argument(None, metavar="[key.path=value]...", help="Fields of the recipe to change.")


@app.callback()
def _data() -> None:
    """Group the commands for training data."""


@app.command("check")
def _check(recipe: str = _RECIPE, settings: list[str] | None = _SETTINGS) -> None:
    """Read every picture of a recipe's data once and store the result in an index.

    \b
    lavi data check mini-llama_mini-sd_lavi data.kind=folder data.path=pictures
    lavi data check my_recipe.yaml

    Training then opens the data immediately and uses only pictures that passed. Another check reads only
    changed files, and continues after an interruption. Lists rejected pictures with reasons in
    rejected.jsonl, and exits with 1 if there are too many of them to train.
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
            print(f"{kind}: {len(dataset):,} pictures, drawn on demand: nothing to check")
            continue
        turned_away = len(dataset.rejected.entries)
        print(f"{dataset.where}: {len(dataset):,} usable pictures, {turned_away:,} rejected")
        print(f"index: {dataset.index.folder}")
        if dataset.rejected.warnings:
            print(f"the list also names {len(dataset.rejected.warnings):,} files that do not count")
        if dataset.rejected.all:
            print(f"rejected: {dataset.index.rejected}")
