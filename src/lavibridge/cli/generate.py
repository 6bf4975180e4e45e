"""`lavi generate`: prompts in, PNG files out."""

import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lavibridge.core.seeds import MAX_SEED

if TYPE_CHECKING:
    from PIL.Image import Image

RUN = typer.Argument(
    metavar="RUN",
    help="A run folder, a checkpoint, a folder made by save_pretrained; or an image model, "
    "shipped (mini-sd) or a folder, which then draws with its own text encoder.",
)
PROMPTS = typer.Argument(metavar="PROMPT...", help="One or more prompts, each in quotes.")
OUT = typer.Option(Path("pictures"), "--out", "-o", metavar="FOLDER", help="Where the PNG files go.")
SEED = typer.Option(
    0,
    "--seed",
    min=0,
    max=MAX_SEED,
    help="Seed of every prompt's noise; the same seed gives the same picture.",
)
COUNT = typer.Option(1, "--count", min=1, help="Pictures per prompt, from seed, seed + 1, ...")
QUALITY = typer.Option(
    "exact", "--quality", metavar="exact|high|fast", help="How much work a picture is worth."
)
STEPS = typer.Option(
    None, "--steps", min=1, help="Denoising steps.  [default: the quality's own, 20 if exact]"
)
GUIDANCE = typer.Option(
    None,
    "--guidance",
    min=0.0,
    help="Classifier-free guidance scale; 1 is none.  [default: the image model's own, or none where "
    "the bridge has learnt it]",
)
INTERVAL = typer.Option(
    None,
    "--guidance-interval",
    metavar="START STOP",
    help="Guidance in these steps only, as shares of all; a step outside costs half.  [default: the "
    "quality's own]",
)
STEP_CACHE = typer.Option(
    None,
    "--step-cache",
    metavar="THRESHOLD",
    help="Let steps that change less than this (0.1) reuse blocks of the step before; PixArt and FLUX only. "
    "A picture then depends a little on those of its batch.  [default: by rounding only]",
)
WEIGHTS = typer.Option(
    True,
    "--weights/--no-weights",
    help="Whether brackets such as (red:1.3) weigh words, or are drawn as they stand; \\( is a bracket.",
)
BATCH = typer.Option(
    16,
    "--batch",
    min=1,
    help="Pictures at a time; changes memory, speed, and a picture by rounding only: up to one grey level "
    "in float32, a few in bfloat16.",
)


def generate(
    run: str = RUN,
    prompts: list[str] = PROMPTS,
    out: Path = OUT,
    seed: int = SEED,
    count: int = COUNT,
    quality: str = QUALITY,
    steps: int | None = STEPS,
    guidance: float | None = GUIDANCE,
    guidance_interval: tuple[float, float] | None = INTERVAL,
    step_cache: float | None = STEP_CACHE,
    weights: bool = WEIGHTS,
    batch: int = BATCH,
) -> None:
    """Draw pictures with a trained bridge.

    \b
    lavi generate runs/quickstart "a red circle" "a small blue square"
    lavi generate runs/quickstart "a red circle" --count 4 --seed 10 --out pictures/circles
    lavi generate runs/quickstart "a (red:1.3) circle" --quality fast
    lavi generate runs/quickstart "a red circle" --steps 50 --guidance 5 --guidance-interval 0 0.6
    lavi generate mini-pixart "a red circle" --steps 50 --step-cache 0.1

    The path of each PNG is printed on stdout, one a line, as soon as it is written: what is drawn when Ctrl-C
    comes is kept. Prompt, seed, steps and guidance are kept in it.
    """
    from lavibridge.bridge import Bridge
    from lavibridge.core.log import progress
    from lavibridge.generation.asked import check_step_cache
    from lavibridge.generation.quality import read_quality
    from lavibridge.recipes.places import inputs_of, refuse_inside

    _refuse_files(prompts)
    check_step_cache(step_cache)
    refuse_inside(out, "--out", inputs_of(run))
    worth = read_quality(quality)
    steps = worth.steps if steps is None else steps
    interval = guidance_interval or worth.guidance_interval
    bridge = Bridge.open(run)
    scale = bridge.default_guidance if guidance is None else guidance
    wanted = [(prompt, seed + offset) for prompt in prompts for offset in range(count)]
    told = {"steps": str(steps), "guidance": str(scale)} | _rest(quality, interval, step_cache, weights)
    with Kept(out, wanted, told) as kept, progress("steps") as bar:
        task = bar.add_task("drawing", total=None, status="")
        bridge.generate(
            [prompt for prompt, _ in wanted],
            seed=[each for _, each in wanted],
            steps=steps,
            guidance=scale,
            guidance_interval=interval,
            weights=weights,
            step_cache=step_cache,
            batch=batch,
            quality=quality,
            on_step=lambda done, total: bar.update(task, completed=done, total=total),
            on_picture=kept.write,
        )


class Kept:
    """Pictures that are written as they are drawn; a context, at whose end it is said where not all were."""

    def __init__(self, out: Path, wanted: list[tuple[str, int]], told: dict[str, str]) -> None:
        self.out = out
        self.wanted = wanted
        self.told = told
        self.written = 0

    def write(self, number: int, picture: "Image") -> None:
        """Write a picture under the next number that is free, and print its path."""
        from lavibridge.core.lock import hold
        from lavibridge.generation.sheet import save_png

        prompt, seed = self.wanted[number]
        with hold(self.out, waits=f"{self.out} is being written to"):  # another call may write there as well
            first = 1 + max((_number(path) for path in self.out.glob("*.png")), default=0)
            path = self.out / f"{first:04d}-{_slug(prompt)}-seed{seed}.png"
            try:
                save_png(path, picture, {"prompt": prompt, "seed": str(seed)} | self.told)
            finally:  # Ctrl-C may come when the file is there already
                if path.exists():
                    self.written += 1
                    print(path, flush=True)

    def __enter__(self) -> "Kept":
        return self

    def __exit__(self, *error: object) -> None:
        from lavibridge.core.log import console

        if 0 < self.written < len(self.wanted):
            told = f"{self.written} of {len(self.wanted)} pictures are drawn and lie in {self.out}"
            console.print(told, soft_wrap=True)


def _rest(
    quality: str, interval: tuple[float, float], step_cache: float | None, weights: bool
) -> dict[str, str]:
    """What else is kept in a picture: only what is not as usual."""
    from lavibridge.diffusion.guidance import EVERYWHERE
    from lavibridge.generation.quality import EXACT

    found = {} if quality == EXACT else {"quality": quality}
    if interval != EVERYWHERE:
        found["guidance_interval"] = " ".join(str(each) for each in interval)
    if step_cache is not None:
        found["step_cache"] = str(step_cache)
    return found if weights else {**found, "weights": "none"}


def _refuse_files(prompts: list[str]) -> None:
    """RecipeError for a prompt that is the name of a file here: its name would be drawn."""
    from lavibridge.core.errors import RecipeError

    for prompt in prompts:
        if ("." in prompt or os.sep in prompt) and os.path.isfile(prompt):
            raise RecipeError(
                f"'{prompt}' is a file, and prompts are texts: its name would be drawn. To draw each of its "
                f"lines: tr '\\n' '\\0' < {shlex.quote(prompt)} | xargs -0 lavi generate RUN"
            )


def _slug(prompt: str) -> str:
    return re.sub(r"[\W_]+", "-", prompt.lower()).strip("-")[:48].strip("-") or "picture"


def _number(path: Path) -> int:
    """The number that a picture's name begins with, so that a second call adds pictures and replaces none."""
    found = re.match(r"\d+", path.name)
    return int(found.group()) if found else 0
