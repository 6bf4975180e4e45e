"""The bodies of HTTP requests, and how they become requests of the engine."""

import secrets
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from lavibridge.core.config import Config, did_you_mean
from lavibridge.core.errors import RecipeError
from lavibridge.core.unicode_text import is_valid_unicode
from lavibridge.generation.emphasis import read_emphasis
from lavibridge.generation.image_files import ImageFormat
from lavibridge.generation.quality import EXACT_QUALITY, QUALITIES, read_quality
from lavibridge.generation.sampling import check_sampling_steps
from lavibridge.serve.engine.request import Request
from lavibridge.serve.engine.served_model import ServedModel
from lavibridge.serve.limits import MAX_REQUEST_SEED, Limits


class ClientRequest(Config):
    """A request's body; a key with the value null counts as absent."""

    @model_validator(mode="before")
    @classmethod
    def _leave_out_nulls(cls, body: Any) -> Any:
        if not isinstance(body, Mapping):
            return body
        return {key: value for key, value in body.items() if value is not None}


class PictureRequest(ClientRequest):
    """What to draw."""

    prompt: str
    """What to draw."""
    model: str | None = None
    """Name of a model, as `/v1/models` lists them. None: the first."""
    n: int = Field(default=1, ge=1)
    """Pictures, from seed, seed + 1, ..."""
    size: str | None = None
    """`WIDTHxHEIGHT`. None or `auto`: the vision model's own size."""
    negative_prompt: str = ""
    """What guidance leads away from."""
    prompt_weighting: bool = False
    """Whether `(word:1.3)` in both prompts weighs a word; else brackets are text."""
    seed: int | None = Field(default=None, ge=0, le=MAX_REQUEST_SEED)
    """Seed of the first picture's noise. None: a random one."""
    quality: Literal["exact", "high", "fast", "low", "medium", "standard", "hd", "xhigh", "max", "auto"] = (
        "exact"
    )
    """How much work a picture gets: `exact`, `high` or `fast`. Of OpenAI's other names `low` is `fast`, and
    the rest are `exact`."""
    num_inference_steps: int | None = Field(default=None, ge=1)
    """Denoising steps. None: the quality's own, 20 where it is exact."""
    guidance_scale: float | None = Field(default=None, ge=0, le=100)
    """Scale of classifier-free guidance; 1 is no guidance. None: the bridge's default."""
    embed_recipe: bool = True
    """Write the recipe into the file, from which the picture can be drawn again."""


class ImageRequest(PictureRequest):
    """A request in the form of OpenAI's images endpoint."""

    response_format: Literal["b64_json", "url"] = "b64_json"
    """The file itself in base 64, or the URL to fetch it from."""
    output_format: ImageFormat = "png"
    """The format of the file."""
    output_compression: int = Field(default=100, ge=0, le=100)
    """Quality of JPEG and WebP from 0, the smallest files, to 100, the best."""
    background: Literal["auto", "opaque"] = "auto"
    """Pictures are opaque."""
    moderation: Literal["auto", "low"] = "auto"
    """Accepted and ignored: nothing is moderated."""
    stream: Literal[False] = False
    """Answers come whole; `/v1/jobs` reports progress."""
    partial_images: Literal[0] = 0
    """Always none; `/v1/jobs` sends previews."""
    user: str | None = Field(default=None, max_length=256)
    """Accepted, as OpenAI's clients may send it, and ignored."""
    safety_identifier: str | None = Field(default=None, max_length=256)
    """Accepted and ignored."""
    style: str | None = Field(default=None, max_length=64)
    """Accepted and ignored."""


class JobRequest(PictureRequest):
    """A job that reports its progress."""

    attention_maps: bool = False
    """Whether to return maps of the words that each region of the picture attends to."""


class TokensRequest(ClientRequest):
    """A prompt to count the tokens of."""

    prompt: str
    """The prompt."""
    prompt_weighting: bool = False
    """Whether `(word:1.3)` in it is a weight, which takes no tokens."""


def requests_of_body(
    body: PictureRequest, models: Mapping[str, ServedModel], limits: Limits, has_attention_maps: bool = False
) -> list[Request]:
    """A request for each picture of a body; RecipeError for values that this server does not take."""
    name = body.model if body.model is not None else next(iter(models))
    if name not in models:
        raise RecipeError(
            f"model: there is no model of that name here{did_you_mean(name, tuple(models))} "
            f"(there are {', '.join(models)})"
        )
    model = models[name]
    check_request_prompt(body.prompt, limits, "prompt")
    check_request_prompt(body.negative_prompt, limits, "negative_prompt")
    quality = {"low": "fast"}.get(body.quality, body.quality if body.quality in QUALITIES else EXACT_QUALITY)
    steps = body.num_inference_steps or read_quality(quality).num_inference_steps
    for key, found, most in (("n", body.n, limits.count), ("num_inference_steps", steps, limits.steps)):
        if found > most:
            raise RecipeError(f"{key}: this server takes {most} at most, found {found}")
    vision = model.bridge.vision
    check_sampling_steps(steps, len(vision.times), "num_inference_steps")
    width, height = _size(body.size, vision.default_size, limits.side)
    prompts = [read_emphasis(prompt, body.prompt_weighting) for prompt in (body.prompt, body.negative_prompt)]
    if not prompts[0].text.strip():
        raise RecipeError("prompt: give a text to draw, it is empty")
    model.check(prompts, height, width)
    seed = secrets.randbelow(2**32) if body.seed is None else body.seed
    guidance = model.bridge.default_guidance if body.guidance_scale is None else body.guidance_scale
    return [
        Request(
            model=name,
            prompt=body.prompt,
            negative_prompt=body.negative_prompt,
            prompt_weighting=body.prompt_weighting,
            seed=(seed + number) % (MAX_REQUEST_SEED + 1),
            num_inference_steps=steps,
            guidance_scale=guidance,
            quality=quality,
            width=width,
            height=height,
            has_attention_maps=has_attention_maps,
        )
        for number in range(body.n)
    ]


def check_request_prompt(prompt: str, limits: Limits, key: str) -> None:
    """RecipeError for a prompt that is too long or not valid Unicode."""
    if not is_valid_unicode(prompt):  # JSON can hold half of a surrogate pair
        raise RecipeError(f"{key}: this is not valid Unicode")
    if len(prompt.encode("utf-8")) > limits.prompt_bytes:
        raise RecipeError(f"{key}: longer than {limits.prompt_bytes} bytes of UTF-8: shorten it")


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
