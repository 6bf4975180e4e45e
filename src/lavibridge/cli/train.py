"""`lavi train`: trains a recipe into a run folder."""

from pathlib import Path

import typer

_RECIPE = typer.Argument(metavar="RECIPE", help="A recipe's name (see `lavi show`) or a path to a YAML file.")
_SETTINGS = typer.Argument(
    None, metavar="[key.path=value]...", help="Fields of the recipe to change for this run."
)
_OUT = typer.Option(
    None, "--out", "-o", metavar="FOLDER", help="Run folder to create.  [default: runs/RECIPE]"
)
_RESUME = typer.Option(False, "--resume", help="Continue from the newest complete checkpoint in --out.")
_SAMPLE_PROMPTS = typer.Option(
    None,
    "--sample-prompts",
    metavar="FILE",
    help="Prompts of the sample images: a text file with one per line.  [default: those of the recipe]",
)


def train(
    recipe: str = _RECIPE,
    settings: list[str] | None = _SETTINGS,
    out: Path | None = _OUT,
    resume: bool = _RESUME,
    sample_prompts: Path | None = _SAMPLE_PROMPTS,
) -> None:
    """Train a bridge between two models.

    Trains LoRA in both models and the connector between them; all other weights stay frozen.

    \b
    lavi train mini-llama_mini-sd_lavi --out runs/first
    lavi train mini-llama_mini-sd_lavi training.steps=200 data.kind=tsv data.path=pairs.tsv --out runs/mine
    lavi train mini-llama_mini-sd_lavi training.steps=4000 --out runs/first --resume
    lavi train my_recipe.yaml --sample-prompts prompts.txt --out runs/mine

    Ctrl-C writes a checkpoint first. Never overwrites an existing run folder. Prints the folder's path on
    stdout; generate with it at any time: lavi generate FOLDER "a prompt".
    """
    from lavibridge.core.process_rank import rank_from_environment
    from lavibridge.generation.prompt_file import read_plain_prompts
    from lavibridge.recipes.recipe import load_recipe
    from lavibridge.training.train import train as train_bridge

    loaded = load_recipe(recipe, settings or [])
    if sample_prompts is not None:
        preview = loaded.preview.model_copy(update={"prompts": read_plain_prompts(sample_prompts)})
        loaded = loaded.model_copy(update={"preview": preview})
    folder = out or Path("runs") / Path(recipe).stem
    run = train_bridge(loaded, folder, resume=resume)
    if rank_from_environment().rank == 0:  # only one of several processes prints
        print(run)
