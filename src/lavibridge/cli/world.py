"""`lavi world`: draws scenes of the miniature world, checks images, and pretrains the shipped models."""

from pathlib import Path

import typer

from lavibridge.core.seeds import MAX_SEED

app = typer.Typer(
    help="The miniature world: draw scenes, check images, pretrain models.\n\n"
    "The world consists of drawn scenes, their captions, an exact checker, and models pretrained on them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_CATEGORY = typer.Option(
    None, "--category", "-c", help="One category of prompts.  [default: the training mix]"
)
_COUNT = typer.Option(16, "--count", "-n", min=1, help="Number of scenes.")
_SEED = typer.Option(0, "--seed", min=0, max=MAX_SEED, help="The same seed gives the same scenes.")
_OUT = typer.Option(Path("world"), "--out", "-o", metavar="FOLDER", help="Folder of the PNG files.")
_PICTURES = typer.Argument(metavar="PICTURE...", help="PNG files of 64 x 64 pixels.")
_NAME = typer.Argument(
    metavar="NAME",
    help="mini-vae, mini-clip, mini-t5-small, mini-t5-base, mini-t5-large, mini-bert, mini-llama; and, "
    "on top of shipped ones, mini-sd (mini-vae, mini-clip), mini-ldm (mini-sd), mini-pixart "
    "(mini-vae, mini-t5-base), mini-sd3 (mini-vae, mini-clip, mini-sd's text encoder).",
)
_MADE = typer.Option(
    None, "--out", "-o", metavar="FOLDER", help="Model folder to create.  [default: runs/pretrain/NAME]"
)
_MODELS = typer.Argument(
    None, metavar="[MODEL...]", help="Vision models and bridges to use.  [default: the shipped vision models]"
)
_CATEGORIES = typer.Option(None, "--category", "-c", help="Only this category; repeatable.")
_EACH = typer.Option(8, "--count", "-n", min=1, help="Number of prompts per category.")
_SCALE = typer.Option(
    4.0, "--guidance", min=1.0, help="Guidance scale; not used by a bridge with distilled guidance."
)
_PAGE = typer.Option(Path("gallery.html"), "--out", "-o", metavar="FILE", help="The page to write.")
_RESUME = typer.Option(False, "--resume", help="Continue from the newest checkpoint in --out.")
_BEGIN = typer.Option(
    None,
    "--from",
    metavar="MODEL",
    help="Start from a pretrained vision model: a shipped model's name, or a folder.  "
    "[default: random weights]",
)
_STEPS = typer.Option(
    None, "--steps", min=1, help="Stop at this step, counted from random weights.  [default: the model's own]"
)


@app.command("draw")
def _draw(category: str | None = _CATEGORY, count: int = _COUNT, seed: int = _SEED, out: Path = _OUT) -> None:
    """Draw scenes and print their captions.

    \b
    lavi world draw --count 500 --out data > data/pairs.tsv
    lavi world draw --category counting --count 4

    Prints one line per scene on stdout, path and caption separated by a tab: a data set for `lavi train`.
    """
    from PIL import Image

    from lavibridge.core.errors import RecipeError
    from lavibridge.world.captions import CATEGORIES, sample_captioned_scene
    from lavibridge.world.drawing import draw_scene

    if category is not None and category not in CATEGORIES:
        raise RecipeError(f"--category: unknown category '{category}' (choose from {', '.join(CATEGORIES)})")
    out.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        pair = sample_captioned_scene(seed, index, category=category)
        path = out / f"{index:05d}.png"
        Image.fromarray(draw_scene(pair.scene)).save(path)
        print(f"{path}\t{pair.caption}")


@app.command("check")
def _check(pictures: list[Path] = _PICTURES) -> None:
    """Recognise the scenes in images.

    \b
    lavi world check pictures/*.png

    Uses image analysis without a learned model. Prints one line per image on stdout: its objects, their
    centres in pixels, and what could not be recognised.
    """
    from PIL import Image

    from lavibridge.core.errors import DataError
    from lavibridge.world.scene_parser import parse_scene

    for path in pictures:
        try:
            with Image.open(path) as picture:
                found = parse_scene(picture)
        except OSError as error:
            raise DataError(f"{path} cannot be read as an image: {error}") from None
        things = [
            f"{each.size} {each.texture} {each.color} {each.shape} at {each.center}" for each in found.things
        ]
        doubts = [f"unreadable: {reason}" for reason in found.unreadable]
        print("\t".join([str(path), "; ".join(things + doubts) or "nothing"]))


@app.command("gallery")
def _gallery(
    models: list[str] | None = _MODELS,
    category: list[str] | None = _CATEGORIES,
    count: int = _EACH,
    guidance: float = _SCALE,
    out: Path = _PAGE,
) -> None:
    """Write a page of drawn scenes and of models' images for their captions.

    \b
    lavi world gallery
    lavi world gallery mini-sd runs/quickstart --category two --count 20
    lavi world gallery mini-pixart --guidance 2

    The page is one file that needs no network. The exact checker marks correct images and explains errors.
    """
    from lavibridge.core.errors import RecipeError
    from lavibridge.core.files import shipped_models
    from lavibridge.core.paths import models_folder
    from lavibridge.report.gallery import write_gallery
    from lavibridge.world.captions import CATEGORIES

    unknown = [name for name in category or () if name not in CATEGORIES]
    if unknown:
        raise RecipeError(
            f"--category: unknown category '{unknown[0]}' (choose from {', '.join(CATEGORIES)})"
        )
    drawing = [name for name in shipped_models() if (models_folder() / name / "model_index.json").is_file()]
    print(write_gallery(models or drawing, category or CATEGORIES, count, guidance, out))


@app.command("pretrain")
def _pretrain(
    name: str = _NAME,
    out: Path | None = _MADE,
    resume: bool = _RESUME,
    init_from: str | None = _BEGIN,
    steps: int | None = _STEPS,
) -> None:
    """Pretrain a shipped miniature model again, or continue one.

    \b
    lavi world pretrain mini-llama
    lavi world pretrain mini-sd --out runs/pretrain/mini-sd --resume
    lavi world pretrain mini-sd --from mini-sd --steps 90000
    """
    from lavibridge.zoo.pretraining_jobs import pretrain_miniature

    print(
        pretrain_miniature(
            name, out or Path("runs/pretrain") / name, resume=resume, init_from=init_from, steps=steps
        )
    )
