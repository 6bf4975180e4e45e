"""`lavi train`: a recipe in, a run folder out."""

from pathlib import Path

import typer

_RECIPE = typer.Argument(metavar="RECIPE", help="A recipe's name (see `lavi show`) or a path to a YAML file.")
_SETTINGS = typer.Argument(
    None, metavar="[key.path=value]...", help="Fields of the recipe to change for this run."
)
_OUT = typer.Option(None, "--out", "-o", metavar="FOLDER", help="Run folder to make.  [default: runs/RECIPE]")
_RESUME = typer.Option(False, "--resume", help="Go on from the newest complete checkpoint in --out.")


def train(
    recipe: str = _RECIPE,
    settings: list[str] | None = _SETTINGS,
    out: Path | None = _OUT,
    resume: bool = _RESUME,
) -> None:
    """Train a bridge between two models.

    LoRA in both models and the connector between them are trained; nothing else moves.

    \b
    lavi train mini-llama_mini-sd_lavi --out runs/first
    lavi train mini-llama_mini-sd_lavi training.steps=200 data.kind=tsv data.path=pairs.tsv --out runs/mine
    lavi train mini-llama_mini-sd_lavi training.steps=4000 --out runs/first --resume
    lavi train my_recipe.yaml --out runs/mine

    Ctrl-C writes a checkpoint first. A run folder that exists is never overwritten. The folder's path is
    printed on stdout; draw with it at any time: lavi generate FOLDER "a prompt".
    """
    from lavibridge.core.process_rank import rank_from_environment
    from lavibridge.recipes.recipe import load_recipe
    from lavibridge.training.train import train as train_bridge

    loaded = load_recipe(recipe, settings or [])
    folder = out or Path("runs") / Path(recipe).stem
    run = train_bridge(loaded, folder, resume=resume)
    if rank_from_environment().rank == 0:  # only one of several processes prints
        print(run)
