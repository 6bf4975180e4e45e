"""`lavi pivot`: adds models to a shared space, so that every pair of them generates without training."""

import re
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from lavibridge.training.pivot.ranking import RankDrawing

SUITE = "world"
"""The suite whose results `show` lists, and its metric."""
RANKED = ("one", "two", "unseen-words")
"""Categories of that suite that `rank` draws by default."""
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
CATEGORY = typer.Option("all", "--category", "-c", help="Show the scores of this category.")
MODELS = typer.Argument(
    metavar="MODEL... [key.path=value]...",
    help="Language models: names of halves, shipped models' names, folders or hub ids; and fields of the "
    "recipe to change for those that are added.",
)
VISION = typer.Option(
    None, "--vision", metavar="NAME", help="Vision half to generate with.  [default: the first of the pivot]"
)
CATEGORIES = typer.Option(
    None,
    "--category",
    "-c",
    help="Category of prompts to generate; repeatable.  [default: one, two, unseen-words of `world`, "
    "otherwise all]",
)
LIMIT = typer.Option(60, "--limit", "-n", min=1, help="Maximum number of prompts per category.")
RANK_SUITE = typer.Option(SUITE, "--suite", help="A suite's name or a path to its YAML file.")
QUALITY = typer.Option("fast", "--quality", metavar="exact|high|fast", help="Trades quality for speed.")
DRAW = typer.Option(True, "--draw/--no-draw", help="Generate and score images, or compare by captions alone.")
CLOSED_FORM = typer.Option(
    False, "--closed-form", help="Only the ridge regression: train no half, generate no images."
)
RANK_OUT = typer.Option(
    None,
    "--out",
    "-o",
    metavar="FOLDER",
    help="Keep the pivot with the added models; a second call continues an interrupted first.  "
    "[default: a temporary folder]",
)
JSON = typer.Option(None, "--json", metavar="FILE", help="Write all figures as JSON.")
SETTING = re.compile(r"[a-z_]+(\.[a-z0-9_]+)*=")

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


@app.command("add-image-encoder")
def _add_image_encoder(
    folder: Path = FOLDER,
    model: str = MODEL,
    settings: list[str] | None = SETTINGS,
    name: str | None = NAME,
) -> None:
    """Add an image encoder: its half learns to fill the slots of each picture's caption.

    \b
    lavi pivot add-image-encoder pivots/mini mini-clip
    lavi pivot add-image-encoder pivots/mini openai/clip-vit-base-patch32 "data={kind: folder, path: photos}"

    Needs pictures with captions. Every vision model of the pivot then draws what a picture shows (`lavi
    generate ENCODER+VISION --image FILE`). Prints the folder of the half on stdout.
    """
    from lavibridge.pivot.folder import read_pivot
    from lavibridge.training.pivot.image_regression import add_image_encoder as add
    from lavibridge.training.pivot.recipes import added_recipe, name_of

    pivot = read_pivot(folder)
    recipe = added_recipe(pivot, "image_encoder", model, settings or [], None)
    print(add(pivot, recipe, model, name or name_of(model)))


@app.command("show")
def _show(folder: Path = FOLDER, category: str = CATEGORY) -> None:
    """List the halves of a pivot, and the score of each pair.

    \b
    lavi pivot show pivots/mini
    lavi pivot show pivots/mini --category two

    The fvu is the fraction of variance unexplained on held-out captions: of the slots for a language half, of
    the teacher's outputs for a vision half. You can combine any language half with any vision half. The table
    of pairs has the share of correctly generated prompts if `lavi evaluate LANGUAGE+VISION --pivot PIVOT` has
    measured it. A ~ marks a prediction, made from the measured pairs. A dash marks a pair about which they
    say nothing.
    """
    from lavibridge.cli.pivot_tables import half_rows, pair_rows, print_pair_legend, print_table
    from lavibridge.core.errors import did_you_mean
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
    print_pair_legend(scores)


@app.command("rank")
def _rank(
    folder: Path = FOLDER,
    models: list[str] = MODELS,
    captions: Path | None = CAPTIONS,
    vision: str | None = VISION,
    suite: str = RANK_SUITE,
    category: list[str] | None = CATEGORIES,
    limit: int = LIMIT,
    quality: str = QUALITY,
    draw: bool = DRAW,
    closed_form: bool = CLOSED_FORM,
    out: Path | None = RANK_OUT,
    json_file: Path | None = JSON,
) -> None:
    """Compare language models for a pivot, the best first.

    \b
    lavi pivot rank pivots/mini mini-llama mini-bert mini-t5-small mini-t5-base
    lavi pivot rank pivots/mini mini-bert HuggingFaceTB/SmolLM2-135M --closed-form
    lavi pivot rank pivots/mini mini-bert mini-t5-base training.align.steps=1000 --out pivots/ranked

    Adds each model to a copy of the pivot, as `add-language` does, and measures its images with one vision
    model. Measures an existing half as it is: use `add-language` first for a model that needs settings of its
    own. For each model the table has three fractions of variance unexplained on held-out captions (of a ridge
    regression on pooled features, of the trained half, and of the half for words that no caption contains),
    the share of correct images with its 95 % interval, the model's size, and its time per prompt. Below the
    table, rank correlations tell how well the figures that need no images order the models.
    """
    from lavibridge.cli.pivot_tables import print_ranking
    from lavibridge.core.files import write_json
    from lavibridge.pivot.folder import copy_pivot, read_pivot
    from lavibridge.training.pivot.ranking import rank_correlations, rank_languages, ranking_record

    settings = [each for each in models if SETTING.match(each)]
    names = [each for each in models if each not in settings]
    if not names:
        raise typer.BadParameter("name at least one language model")
    pivot = read_pivot(folder)
    drawing = None
    if draw and not closed_form:
        drawing = _drawing(vision or pivot.names("vision")[0], suite, category, limit, quality)
    with ExitStack() as during:
        place = out or Path(during.enter_context(TemporaryDirectory(prefix="lavi-rank-"))) / "pivot"
        there = copy_pivot(pivot, place)
        ranked = rank_languages(there, names, settings, captions, drawing=drawing, closed_form=closed_form)
    correlations = rank_correlations(ranked)
    print_ranking(ranked, correlations)
    if json_file is not None:
        write_json(json_file, ranking_record(pivot, drawing, ranked, correlations))


def _drawing(vision: str, suite: str, category: list[str] | None, limit: int, quality: str) -> "RankDrawing":
    """How to draw; LaviError for an unknown suite or quality."""
    from lavibridge.evaluation.suite import read_suite
    from lavibridge.generation.quality import read_quality
    from lavibridge.training.pivot.ranking import RankDrawing

    read_suite(suite)
    read_quality(quality)
    categories = tuple(category or (RANKED if suite == SUITE else ()))
    return RankDrawing(
        vision=vision, suite=suite, categories=categories or None, limit=limit, quality=quality
    )
