"""Groups requested images into the calls of the pipeline that generate them, for `lavi generate`."""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lavibridge.core.errors import RecipeError
from lavibridge.generation.checks import read_size
from lavibridge.generation.prompt_file import RequestedPrompt, read_prompt_file

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True)
class DefaultSettings:
    """What the command line sets for every prompt whose own line leaves it open."""

    negative_prompt: str | None
    size: tuple[int, int] | None
    """Width and height in pixels."""
    seed: int
    guidance_scale: float | None


@dataclass(frozen=True, kw_only=True)
class ImageBatch:
    """The images of one call: consecutive prompts that share a size and a guidance scale."""

    options: Mapping[str, Any]
    """Arguments of the call."""
    first: int
    """The first image's index among all images of the command."""
    images: Sequence[dict[str, str]]
    """Metadata of each image."""


def default_settings(
    negative_prompt: str | None, size: str | None, seed: int, guidance_scale: float | None
) -> DefaultSettings:
    """Read the options of the command line. Raises RecipeError for a size that is no `WIDTHxHEIGHT`."""
    return DefaultSettings(
        negative_prompt=negative_prompt,
        size=None if size is None else read_size(size, "--size"),
        seed=seed,
        guidance_scale=guidance_scale,
    )


def check_grid(path: Path) -> None:
    """Raise RecipeError if the file of a grid is no PNG, or if its folder does not exist."""
    if path.suffix != ".png":
        raise RecipeError(f"--grid: name a file that ends in .png, found {path}")
    if not path.parent.is_dir():
        raise RecipeError(f"--grid: the folder {path.parent} does not exist: make it first")


def read_requests(
    prompts: Sequence[str], prompt_file: Path | None, images: Sequence[Path]
) -> list[RequestedPrompt]:
    """Return what to generate: prompts, the lines of a file, or the names of pictures.

    Raises RecipeError unless exactly one of the three is there, and for a file that holds no prompts.
    """
    if sum(map(bool, (prompts, prompt_file, images))) != 1:
        raise RecipeError("give one of these: prompts, a file with --prompts, or pictures with --image")
    _refuse_files(prompts)
    if prompt_file is not None:
        return read_prompt_file(prompt_file)
    texts = prompts or [path.name for path in images]
    return [RequestedPrompt.model_construct(prompt=text) for text in texts]


def image_batches(
    requests: Sequence[RequestedPrompt],
    inputs: "Sequence[str | Image]",
    sources: Sequence[dict[str, str]],
    defaults: DefaultSettings,
    default_scale: float,
    count: int,
) -> list[ImageBatch]:
    """Group the images, in order, into calls of the pipeline.

    ``inputs`` has a prompt or a picture for each request, ``sources`` its metadata; ``default_scale`` is the
    bridge's guidance scale; each request gets ``count`` images.
    """

    def shared(index: int) -> tuple[int | None, int | None, float]:
        request = requests[index]
        width, height = defaults.size or (None, None)
        scales = (request.guidance_scale, defaults.guidance_scale, default_scale)
        scale = next(each for each in scales if each is not None)
        return request.width or width, request.height or height, scale

    batches: list[ImageBatch] = []
    for (width, height, scale), indices in groupby(range(len(requests)), shared):
        chosen = list(indices)
        images: list[dict[str, str]] = []
        for index in chosen:
            request = requests[index]
            negative = _negative(request, defaults)
            own = sources[index] | ({} if negative is None else {"negative_prompt": negative})
            first = defaults.seed if request.seed is None else request.seed
            images += [
                own | {"guidance_scale": str(scale), "seed": str(first + number)} for number in range(count)
            ]
        negatives = [_negative(requests[index], defaults) for index in chosen]
        options = {
            "prompt": [inputs[index] for index in chosen],
            "negative_prompt": [each or "" for each in negatives] if any(negatives) else None,
            "width": width,
            "height": height,
            "guidance_scale": scale,
            "seed": [int(each["seed"]) for each in images],
        }
        batches.append(ImageBatch(options=options, first=chosen[0] * count, images=images))
    return batches


def _negative(request: RequestedPrompt, defaults: DefaultSettings) -> str | None:
    return defaults.negative_prompt if request.negative_prompt is None else request.negative_prompt


def _refuse_files(prompts: Sequence[str]) -> None:
    """Raise RecipeError if a prompt is the name of a file."""
    for prompt in prompts:
        if ("." in prompt or os.sep in prompt) and os.path.isfile(prompt):
            raise RecipeError(
                f"the prompt '{prompt}' is the name of a file: give a description of an image, or --prompts "
                f"{shlex.quote(prompt)} to use each line of the file"
            )
