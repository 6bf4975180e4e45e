"""`lavi align`: trains a bridge from captions alone."""

from pathlib import Path

import typer

RECIPE = typer.Argument(metavar="RECIPE", help="A recipe's name (see `lavi show`) or a path to a YAML file.")
SETTINGS = typer.Argument(None, metavar="[key.path=value]...", help="Fields of the recipe to change.")
CAPTIONS = typer.Option(
    None, "--captions", metavar="FILE", help="Captions, one per line.  [default: those of the recipe's data]"
)
LANGUAGE = typer.Option(
    None, "--language", metavar="MODEL", help="Language model to use in place of the recipe's."
)
TEACHER = typer.Option(
    None,
    "--from",
    metavar="BRIDGE",
    help="Bridge to the same vision model to learn from.  [default: the vision model's own text encoder]",
)
TRANSLATE = typer.Option(
    False,
    "--translate",
    help="Keep the connector of --from, and train a translator that adapts the language model's features.",
)
OUT = typer.Option(
    None, "--out", "-o", metavar="FOLDER", help="Run folder to create.  [default: runs/RECIPE-aligned]"
)
RESUME = typer.Option(False, "--resume", help="Continue an interrupted alignment.")
REPORT = typer.Option(
    False,
    "--report",
    help="Also write FOLDER/alignment-report: loss curve, memory, times and sample images, without names.",
)

PANEL_LORA = typer.Option(
    None,
    "--panel-lora",
    metavar="FILE",
    help="LoRA file of the vision model, with which the report draws one row of its panel.",
)


def align(
    recipe: str = RECIPE,
    settings: list[str] | None = SETTINGS,
    captions: Path | None = CAPTIONS,
    language: str | None = LANGUAGE,
    teacher: str | None = TEACHER,
    translate: bool = TRANSLATE,
    out: Path | None = OUT,
    resume: bool = RESUME,
    report: bool = REPORT,
    panel_lora: Path | None = PANEL_LORA,
) -> None:
    """Teach a vision model another language model from captions alone.

    The connector learns to replace the vision model's own text encoder, or the bridge of --from. This needs
    no images, and changes neither model.

    \b
    lavi align mini-llama_mini-sd_lavi --out runs/aligned
    lavi align mini-llama_mini-sd_lavi --language minilm --captions captions.txt
    lavi align mini-llama_mini-sd_lavi --from runs/large training.align.steps=2000
    lavi align mini-llama_mini-sd_lavi --from runs/large --language minilm --translate
    lavi align sdxl_aligned --captions captions.txt --report --panel-lora style.safetensors

    `training.align` in the recipe holds the settings: objective (`match`), steps, learning rate. The folder
    is a run: generate with it (`lavi generate FOLDER "a prompt"`), look at its report (`lavi report FOLDER`),
    or continue to train it with images (`lavi train RECIPE --out FOLDER --resume`).
    """
    from lavibridge.core.errors import RecipeError
    from lavibridge.core.process_rank import rank_from_environment
    from lavibridge.recipes.alignment import alignment_recipe
    from lavibridge.recipes.recipe import load_recipe
    from lavibridge.training.train import train

    if panel_lora is not None and not report:
        raise RecipeError("--panel-lora is for the panel of the report: add --report")
    if panel_lora is not None and not panel_lora.exists():
        raise RecipeError(f"--panel-lora: there is no file {panel_lora}")
    loaded = alignment_recipe(load_recipe(recipe, settings or []), captions, language, teacher, translate)
    folder = out or Path("runs") / f"{Path(recipe).stem}-aligned"
    run = train(loaded, folder, resume=resume)
    if rank_from_environment().rank == 0:  # only one of several processes prints
        if report:
            from lavibridge.report.alignment import write_alignment_report

            write_alignment_report(run, panel_lora)
        print(run)
