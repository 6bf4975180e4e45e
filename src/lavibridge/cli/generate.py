"""`lavi generate`: generates PNG files from prompts."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lavibridge.core.seeds import MAX_SEED

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.Image import Image

    from lavibridge.bridge import Bridge
    from lavibridge.cli.image_batches import ImageBatch
    from lavibridge.generation.pipeline import BridgePipeline
    from lavibridge.generation.prompt_file import RequestedPrompt
    from lavibridge.language.parts.proxy import ProxySettings

_RUN = typer.Argument(
    metavar="RUN",
    help="A run folder, a checkpoint, or a saved bridge (folder, single file or hub id); or a vision model, "
    "shipped (mini-sd), a folder or a hub id, to use with its own text encoder; or LANGUAGE+VISION, two "
    "models of a pivot.",
)
_PIVOT = typer.Option(
    None,
    "--pivot",
    metavar="FOLDER",
    help="Pivot that LANGUAGE+VISION belong to (see `lavi pivot`).  [default: the one in the package]",
)
PROXY = typer.Option(
    None,
    "--proxy",
    metavar="SETTINGS",
    help="Let a remote model revise the prompts: a YAML file or '{endpoint: URL, model: NAME, ...}' (fields: "
    "`lavi show proxy`).  [default: the bridge's own language.proxy]",
)
_IMAGE = typer.Option(
    None,
    "--image",
    metavar="FILE",
    help="Draw what this picture shows, with RUN = ENCODER+VISION: an image encoder and a vision model of a "
    "pivot. It replaces the prompts. Repeatable.",
)
_PROMPTS = typer.Argument(None, metavar="[PROMPT...]", help="One or more prompts, each in quotes.")
_PROMPT_FILE = typer.Option(
    None,
    "--prompts",
    metavar="FILE",
    help="Read the prompts from a file: one per line, or JSON Lines (.jsonl) with the fields prompt, "
    "negative_prompt, seed, height, width and guidance_scale. It replaces the prompts.",
)
_NEGATIVE = typer.Option(None, "--negative-prompt", metavar="TEXT", help="What no image should show.")
_SIZE = typer.Option(
    None, "--size", metavar="WIDTHxHEIGHT", help="Size in pixels.  [default: the vision model's own]"
)
_GRID = typer.Option(
    None,
    "--grid",
    metavar="FILE",
    help="Also write all images as one PNG, a row for each prompt and a column for each of --count.",
)
_OUT = typer.Option(Path("pictures"), "--out", "-o", metavar="FOLDER", help="Folder of the PNG files.")
_SEED = typer.Option(
    0,
    "--seed",
    min=0,
    max=MAX_SEED,
    help="Seed of every prompt's noise; the same seed gives the same image.",
)
_COUNT = typer.Option(1, "--count", min=1, help="Images per prompt, with seed, seed + 1, ...")
_QUALITY = typer.Option("exact", "--quality", metavar="exact|high|fast", help="Trades quality for speed.")
_STEPS = typer.Option(
    None, "--steps", min=1, help="Denoising steps.  [default: the quality's own, 20 if exact]"
)
_GUIDANCE = typer.Option(
    None,
    "--guidance",
    min=0.0,
    help="Scale of classifier-free guidance; 1 disables it.  [default: the vision model's own; 1 if the "
    "bridge has distilled guidance]",
)
_INTERVAL = typer.Option(
    None,
    "--guidance-interval",
    metavar="START STOP",
    help="Use guidance only in this share of the steps; other steps cost half.  [default: the quality's own]",
)
_STEP_CACHE = typer.Option(
    None,
    "--step-cache",
    metavar="THRESHOLD",
    help="Reuse the blocks of the previous step if the first block changed by less than this share, such as "
    "0.1; PixArt and FLUX only. An image then depends slightly on its batch.  [default: compute every step]",
)
_WEIGHTING = typer.Option(
    True,
    "--prompt-weighting/--no-prompt-weighting",
    help="Read brackets such as (red:1.3) as word weights, or as text; \\( always means a bracket.",
)
_BATCH_SIZE = typer.Option(
    16,
    "--batch-size",
    min=1,
    help="Images generated at a time. It affects memory and speed, and changes an image by rounding only: up "
    "to one grey level in float32, a few in bfloat16.",
)


def generate(
    run: str = _RUN,
    prompts: list[str] | None = _PROMPTS,
    prompt_file: Path | None = _PROMPT_FILE,
    image: list[Path] | None = _IMAGE,
    negative_prompt: str | None = _NEGATIVE,
    pivot: Path | None = _PIVOT,
    proxy: str | None = PROXY,
    out: Path = _OUT,
    grid: Path | None = _GRID,
    size: str | None = _SIZE,
    seed: int = _SEED,
    count: int = _COUNT,
    quality: str = _QUALITY,
    steps: int | None = _STEPS,
    guidance: float | None = _GUIDANCE,
    guidance_interval: tuple[float, float] | None = _INTERVAL,
    step_cache: float | None = _STEP_CACHE,
    prompt_weighting: bool = _WEIGHTING,
    batch_size: int = _BATCH_SIZE,
) -> None:
    """Generate images with a trained bridge.

    \b
    lavi generate runs/quickstart "a red circle" "a blue square" --count 4 --seed 10 --out pictures/shapes
    lavi generate runs/quickstart "a (red:1.3) circle" --quality fast
    lavi generate runs/quickstart "a red circle" --steps 50 --guidance 5 --guidance-interval 0 0.6
    lavi generate mini-pixart "a red circle" --steps 50 --step-cache 0.1
    lavi generate mini-bert+mini-pixart "a red circle" --pivot pivots/mini
    lavi generate mini-clip+mini-sd --image scene.png --pivot pivots/mini
    lavi generate runs/quickstart --prompts prompts.txt --negative-prompt blue --grid shapes.png

    Prints the path of each PNG on stdout as soon as the file is written. After Ctrl-C or a failed image, all
    finished images remain. Each PNG holds its prompt, also as a proxy revised it, and its settings.
    """
    from lavibridge.cli.image_batches import check_grid, default_settings, image_batches, read_requests
    from lavibridge.generation.checks import check_step_cache
    from lavibridge.generation.contact_sheet import write_grid
    from lavibridge.recipes.input_paths import input_paths_of, refuse_output_inside_inputs

    check_step_cache(step_cache)
    if grid is not None:
        check_grid(grid)
    refuse_output_inside_inputs(out, "--out", input_paths_of(run))
    defaults = default_settings(negative_prompt, size, seed, guidance)
    requests = read_requests(prompts or [], prompt_file, image or [])
    options = _quality_options(quality, steps, guidance_interval) | {
        "num_images_per_prompt": count,
        "prompt_weighting": prompt_weighting,
        "step_cache": step_cache,
        "batch_size": batch_size,
    }
    pipe, inputs, sources = _open(run, requests, image or [], pivot, proxy, prompt_weighting)
    batches = image_batches(requests, inputs, sources, defaults, pipe.bridge.default_guidance_scale, count)
    images = _generate(pipe, batches, options, out)
    if grid is not None:
        write_grid(grid, images, [each.prompt for each in requests])


def _generate(
    pipe: "BridgePipeline", batches: "Sequence[ImageBatch]", options: dict[str, Any], out: Path
) -> "list[Image]":
    """Generate the batches, and write each image into ``out`` as it is finished; return all of them."""
    from lavibridge.core.log import progress_bar

    requested = [each for batch in batches for each in batch.images]
    calls = sum(-(-len(batch.images) // options["batch_size"]) for batch in batches)
    images: list[Image] = []
    with PictureWriter(out, requested, _metadata(options)) as writer, progress_bar("steps") as bar:
        task = bar.add_task("generating", total=options["num_inference_steps"] * calls, status="")
        for batch in batches:
            images += pipe(
                **batch.options,
                **options,
                callback_on_step_end=lambda *_: bar.advance(task),
                callback_on_image=writer.callback(batch.first),
            ).images
    return images


def _open(
    run: str,
    requests: "list[RequestedPrompt]",
    image: list[Path],
    pivot: Path | None,
    proxy: str | None,
    prompt_weighting: bool,
) -> "tuple[BridgePipeline, list[str] | list[Image], list[dict[str, str]]]":
    """Return the pipeline, its prompts or pictures, and the metadata of each of these."""
    from lavibridge.pivot.folder import pivot_and_pair

    pair = pivot_and_pair(run, pivot)
    if image:
        if proxy is not None:
            raise typer.BadParameter("--proxy revises prompts, and --image has none: leave one out")
        pictures = _read_pictures(image)
        return _open_image_pipeline(pair), pictures, [{"image": each.name} for each in image]
    pipe = open_pipeline(run, pair, proxy=proxy)
    prompts = [each.prompt for each in requests]
    return pipe, prompts, _prompt_metadata(pipe.bridge, prompts, prompt_weighting)


def _prompt_metadata(bridge: "Bridge", prompts: list[str], prompt_weighting: bool) -> list[dict[str, str]]:
    """Return the prompt of each image, and what a proxy made of it."""
    from lavibridge.generation.emphasis import read_emphasis
    from lavibridge.generation.prompt_encoding import revised_metadata

    texts = revised_metadata(bridge, [read_emphasis(each, prompt_weighting).text for each in prompts])
    return [{"prompt": prompt} | text for prompt, text in zip(prompts, texts, strict=True)]


def _read_pictures(paths: list[Path]) -> "list[Image]":
    """Decode pictures. Raises DataError, naming the file, if one cannot be read."""
    from lavibridge.core.errors import DataError
    from lavibridge.data.pictures.decoding import decode_picture_file

    pictures = []
    for path in paths:
        try:
            pictures.append(decode_picture_file(path))
        except DataError as error:
            raise DataError(f"--image {path}: {error}") from None
    return pictures


def _open_image_pipeline(pair: tuple[Path, str, str] | None) -> "BridgePipeline":
    """Open a pipeline of an image encoder and a vision model. Raises RecipeError if RUN is no pair."""
    from lavibridge.core.errors import RecipeError
    from lavibridge.generation.pipeline import BridgePipeline

    if pair is None:
        raise RecipeError(
            "--image needs an image encoder and a vision model of a pivot, such as mini-clip+mini-sd"
        )
    pivot, encoder, vision = pair
    return BridgePipeline.from_pivot(pivot, None, vision, image_encoder=encoder)


def open_pipeline(
    run: str, pair: tuple[Path, str, str] | None, device: str = "auto", proxy: str | None = None
) -> "BridgePipeline":
    """Open a pipeline for RUN, with --proxy; ``pair`` is the result of `pivot_and_pair`."""
    from lavibridge.generation.pipeline import BridgePipeline

    settings = None if proxy is None else read_proxy(proxy)
    pipe = (
        BridgePipeline.from_pretrained(run, device=device)
        if pair is None
        else BridgePipeline.from_pivot(*pair, device=device)
    )
    if settings is not None:
        pipe.bridge.language.use_proxy(settings)
    return pipe


def read_proxy(value: str) -> "ProxySettings":
    """Read the option --proxy: a file, or settings in YAML's short form. Raises RecipeError."""
    from lavibridge.core.config import validate_config
    from lavibridge.core.errors import RecipeError
    from lavibridge.core.yaml_text import parse_yaml, read_yaml_file
    from lavibridge.language.parts.proxy import ProxySettings

    is_inline = value.lstrip().startswith("{")
    found = parse_yaml(value, "--proxy") if is_inline else read_yaml_file(Path(value))
    if not isinstance(found, dict):
        raise RecipeError("--proxy must be a YAML file, or settings such as '{endpoint: URL, model: NAME}'")
    return validate_config(ProxySettings, found, "--proxy")


class PictureWriter:
    """Writes each image as it is finished; a context that reports, if some are missing, how many it wrote."""

    def __init__(self, out: Path, requested: list[dict[str, str]], metadata: dict[str, str]) -> None:
        """``requested`` has what each image was made from, ``metadata`` the settings of all."""
        self.out = out
        self.requested = requested
        self.metadata = metadata
        self.written = 0

    def callback(self, first: int) -> "Callable[[int, Image], None]":
        """Return the callback of a call whose first image has this index among all."""
        return lambda number, picture: self.write(first + number, picture)

    def write(self, number: int, picture: "Image") -> None:
        """Write an image under the next free number, and print its path."""
        from lavibridge.core.lock import hold_lock
        from lavibridge.generation.image_files import save_png

        own = self.requested[number]
        with hold_lock(
            self.out, waits=f"another process is writing to {self.out}"
        ):  # another process may write there too
            first = 1 + max((_number(path) for path in self.out.glob("*.png")), default=0)
            stem = own["prompt"] if "prompt" in own else Path(own["image"]).stem
            path = self.out / f"{first:04d}-{_slug(stem)}-seed{own['seed']}.png"
            try:
                save_png(path, picture, own | self.metadata)
            finally:  # Ctrl-C may arrive after the file exists
                if path.exists():
                    self.written += 1
                    print(path, flush=True)

    def __enter__(self) -> "PictureWriter":
        return self

    def __exit__(self, *error: object) -> None:
        from lavibridge.core.log import console

        if 0 < self.written < len(self.requested):
            console.print(
                f"wrote {self.written} of {len(self.requested)} images to {self.out}",
                soft_wrap=True,
            )


def _quality_options(quality: str, steps: int | None, interval: tuple[float, float] | None) -> dict[str, Any]:
    """Return the options of a quality, with the steps and the interval that replace its own."""
    from lavibridge.generation.quality import read_quality

    own = read_quality(quality)
    return {
        "quality": quality,
        "num_inference_steps": own.num_inference_steps if steps is None else steps,
        "guidance_interval": interval or own.guidance_interval,
    }


def _metadata(options: Mapping[str, Any]) -> dict[str, str]:
    """Return the steps, and the options that differ from the defaults, as metadata of a PNG."""
    from lavibridge.diffusion.guidance import GUIDED_EVERYWHERE
    from lavibridge.generation.quality import EXACT_QUALITY

    metadata = {"num_inference_steps": str(options["num_inference_steps"])}
    if options["quality"] != EXACT_QUALITY:
        metadata["quality"] = options["quality"]
    if options["guidance_interval"] != GUIDED_EVERYWHERE:
        metadata["guidance_interval"] = " ".join(str(each) for each in options["guidance_interval"])
    if options["step_cache"] is not None:
        metadata["step_cache"] = str(options["step_cache"])
    return metadata if options["prompt_weighting"] else {**metadata, "prompt_weighting": "off"}


def _slug(prompt: str) -> str:
    return re.sub(r"[\W_]+", "-", prompt.lower()).strip("-")[:48].strip("-") or "picture"


def _number(path: Path) -> int:
    """The number at the start of a file name; 0 if there is none."""
    found = re.match(r"\d+", path.name)
    return int(found.group()) if found else 0
