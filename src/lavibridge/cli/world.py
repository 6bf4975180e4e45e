"""`lavi world`: the miniature world: draw scenes, check pictures, pretrain the shipped models."""

from pathlib import Path

import typer

app = typer.Typer(
    help="The miniature world: draw, check, pretrain.\n\n"
    "Drawn scenes, their captions, an exact checker, and the models that were pretrained on them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

CATEGORY = typer.Option(
    None, "--category", "-c", help="One category of prompts.  [default: the training mix]"
)
COUNT = typer.Option(16, "--count", "-n", min=1, help="How many scenes.")
SEED = typer.Option(0, "--seed", help="The same seed gives the same scenes.")
OUT = typer.Option(Path("world"), "--out", "-o", metavar="FOLDER", help="Where the PNG files go.")
PICTURES = typer.Argument(metavar="PICTURE...", help="PNG files of 64 x 64 pixels.")
NAME = typer.Argument(
    metavar="NAME", help="mini-vae, mini-clip, mini-llama or mini-sd; mini-sd needs the first two."
)
MADE = typer.Option(
    None, "--out", "-o", metavar="FOLDER", help="Model folder to make.  [default: runs/pretrain/NAME]"
)
RESUME = typer.Option(False, "--resume", help="Go on from the newest checkpoint in --out.")


@app.command()
def draw(category: str | None = CATEGORY, count: int = COUNT, seed: int = SEED, out: Path = OUT) -> None:
    """Draw scenes and print their captions.

    \b
    lavi world draw --count 500 --out data > data/pairs.tsv
    lavi world draw --category counting --count 4

    One line a scene goes to stdout, path and caption with a tab between: a data set for `lavi train`.
    """
    from PIL import Image

    from lavibridge.core.errors import RecipeError
    from lavibridge.world.captions import CATEGORIES, sample_pair
    from lavibridge.world.drawing import draw as draw_scene

    if category is not None and category not in CATEGORIES:
        raise RecipeError(
            f"--category: there is no '{category}' in the world; there are {', '.join(CATEGORIES)}"
        )
    out.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        pair = sample_pair(seed, index, category=category)
        path = out / f"{index:05d}.png"
        Image.fromarray(draw_scene(pair.scene)).save(path)
        print(f"{path}\t{pair.caption}")


@app.command()
def check(pictures: list[Path] = PICTURES) -> None:
    """Read pictures back into scenes.

    \b
    lavi world check pictures/*.png

    Image analysis alone, nothing learned. One line a picture goes to stdout: what stands in it, where (centre
    in pixels), and what could not be read.
    """
    from PIL import Image

    from lavibridge.core.errors import DataError
    from lavibridge.world.reading import read

    for path in pictures:
        try:
            with Image.open(path) as picture:
                found = read(picture)
        except OSError as error:
            raise DataError(f"{path} cannot be read as a picture: {error}") from None
        things = [
            f"{each.size} {each.texture} {each.color} {each.shape} at {each.center}" for each in found.things
        ]
        doubts = [f"unreadable: {reason}" for reason in found.unreadable]
        print("\t".join([str(path), "; ".join(things + doubts) or "nothing"]))


@app.command()
def pretrain(name: str = NAME, out: Path | None = MADE, resume: bool = RESUME) -> None:
    """Make a shipped miniature model again.

    \b
    lavi world pretrain mini-llama
    lavi world pretrain mini-sd --out runs/pretrain/mini-sd --resume
    """
    from lavibridge.zoo.pretrain import pretrain as make

    print(make(name, out or Path("runs/pretrain") / name, resume=resume))
