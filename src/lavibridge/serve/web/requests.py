"""What a client may ask for, and how it becomes wishes that the engine draws."""

import secrets
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from lavibridge.core.config import Config, did_you_mean
from lavibridge.core.errors import RecipeError
from lavibridge.core.text import is_unicode
from lavibridge.generation.emphasis import read
from lavibridge.generation.quality import EXACT, QUALITIES, read_quality
from lavibridge.generation.sample import check_steps
from lavibridge.generation.sheet import Format
from lavibridge.serve.engine.painter import Painter
from lavibridge.serve.engine.wish import Wish
from lavibridge.serve.limits import MOST_SEED, Limits


class ClientRequest(Config):
    """A request's body. A key that is null is one that is not given."""

    @model_validator(mode="before")
    @classmethod
    def _leave_out_nulls(cls, body: Any) -> Any:
        if not isinstance(body, Mapping):
            return body
        return {key: value for key, value in body.items() if value is not None}


class PictureRequest(ClientRequest):
    """What is to be drawn."""

    prompt: str
    """What to draw."""
    model: str | None = None
    """Name of a bridge, as `/v1/models` lists them. None: the first."""
    n: int = Field(default=1, ge=1)
    """Pictures, from seed, seed + 1, ..."""
    size: str | None = None
    """`WIDTHxHEIGHT`. None or `auto`: what the image model was made for."""
    negative_prompt: str = ""
    """What guidance leads away from."""
    weights: bool = False
    """Whether `(word:1.3)` in both prompts has more of a word; else brackets are text."""
    seed: int | None = Field(default=None, ge=0, le=MOST_SEED)
    """Seed of the first picture's noise. None: by chance."""
    quality: Literal["exact", "high", "fast", "low", "medium", "standard", "hd", "xhigh", "max", "auto"] = (
        "exact"
    )
    """How much work a picture is worth: `exact`, `high` or `fast`. Of OpenAI's other names `low` is
    `fast`, and the rest are `exact`."""
    num_inference_steps: int | None = Field(default=None, ge=1)
    """Denoising steps. None: the quality's own, 20 where it is exact."""
    guidance_scale: float | None = Field(default=None, ge=0, le=100)
    """Classifier-free guidance; 1 is none. None: the image model's own."""
    embed_recipe: bool = True
    """Write the recipe into the file, so that the picture can be drawn again from it."""


class ImageRequest(PictureRequest):
    """A request in the form of OpenAI's images endpoint."""

    response_format: Literal["b64_json", "url"] = "b64_json"
    """The file itself in base 64, or where to fetch it."""
    output_format: Format = "png"
    """The format of the file."""
    output_compression: int = Field(default=100, ge=0, le=100)
    """Of JPEG and WebP: from 0, the smallest files, to 100, the best."""
    background: Literal["auto", "opaque"] = "auto"
    """Pictures are opaque."""
    moderation: Literal["auto", "low"] = "auto"
    """Nothing is moderated, whichever it is."""
    stream: Literal[False] = False
    """Answers come whole; `/v1/jobs` tells progress."""
    partial_images: Literal[0] = 0
    """None are sent; `/v1/jobs` sends previews."""
    user: str | None = Field(default=None, max_length=256)
    """Taken, as OpenAI's clients may send it, and not used."""
    safety_identifier: str | None = Field(default=None, max_length=256)
    """Taken and not used, as `user`."""
    style: str | None = Field(default=None, max_length=64)
    """Taken and not used: the prompt decides."""


class JobRequest(PictureRequest):
    """A job, whose progress is told."""

    explain: bool = False
    """Also say which words each region of the picture attended to."""


class TokensRequest(ClientRequest):
    """A prompt to be counted."""

    prompt: str
    """The prompt."""
    weights: bool = False
    """Whether `(word:1.3)` in it is a weight, which no token is used for."""


def wishes(
    asked: PictureRequest, painters: Mapping[str, Painter], limits: Limits, is_explained: bool = False
) -> list[Wish]:
    """The pictures of a request; RecipeError says what cannot be had."""
    name = asked.model if asked.model is not None else next(iter(painters))
    if name not in painters:
        raise RecipeError(
            f"model: there is no bridge of that name here{did_you_mean(name, tuple(painters))} "
            f"(there are {', '.join(painters)})"
        )
    painter = painters[name]
    check_prompt(asked.prompt, limits, "prompt")
    check_prompt(asked.negative_prompt, limits, "negative_prompt")
    quality = {"low": "fast"}.get(asked.quality, asked.quality if asked.quality in QUALITIES else EXACT)
    steps = asked.num_inference_steps or read_quality(quality).steps
    for key, found, most in (("n", asked.n, limits.count), ("num_inference_steps", steps, limits.steps)):
        if found > most:
            raise RecipeError(f"{key}: this server gives {most} at most, {found} were asked for")
    vision = painter.bridge.vision
    check_steps(steps, len(vision.times), "num_inference_steps")
    width, height = _size(asked.size, vision.default_size, limits.side)
    prompts = [read(prompt, asked.weights) for prompt in (asked.prompt, asked.negative_prompt)]
    if not prompts[0].text.strip():
        raise RecipeError("prompt: give a text to draw, it is empty")
    painter.check(prompts, height, width)
    seed = secrets.randbelow(2**32) if asked.seed is None else asked.seed
    guidance = painter.bridge.default_guidance if asked.guidance_scale is None else asked.guidance_scale
    return [
        Wish(
            model=name,
            prompt=asked.prompt,
            negative_prompt=asked.negative_prompt,
            weights=asked.weights,
            seed=(seed + number) % (MOST_SEED + 1),
            steps=steps,
            guidance=guidance,
            quality=quality,
            width=width,
            height=height,
            is_explained=is_explained,
        )
        for number in range(asked.n)
    ]


def check_prompt(prompt: str, limits: Limits, key: str) -> None:
    """RecipeError for a prompt that is too long, or no text."""
    if not is_unicode(prompt):  # JSON can hold half of a surrogate pair
        raise RecipeError(f"{key}: this is not valid Unicode")
    if len(prompt.encode("utf-8")) > limits.prompt_bytes:
        raise RecipeError(f"{key}: at most {limits.prompt_bytes} bytes of UTF-8 are taken: shorten it")


def _size(size: str | None, default: int, most: int) -> tuple[int, int]:
    """Width and height in pixels."""
    if size is None or size == "auto":
        return default, default
    width, cross, height = size.partition("x")
    if not (cross and _is_number(width) and _is_number(height)):
        raise RecipeError("size: write it as WIDTHxHEIGHT, such as 64x64, or auto")
    if max(int(width), int(height)) > most:
        raise RecipeError(f"size: this server draws {most} pixels a side at most")
    return int(width), int(height)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5
