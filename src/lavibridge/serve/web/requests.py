"""Bodies of HTTP requests, and their conversion to requests of the engine."""

import secrets
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from lavibridge.core.config import Config
from lavibridge.core.errors import RecipeError, did_you_mean
from lavibridge.core.unicode_text import is_valid_unicode
from lavibridge.generation.checks import read_size
from lavibridge.generation.emphasis import read_emphasis
from lavibridge.generation.image_files import ImageFormat
from lavibridge.generation.quality import EXACT_QUALITY, QUALITIES, read_quality
from lavibridge.generation.sampling import check_sampling_steps
from lavibridge.serve.engine.request import Request
from lavibridge.serve.engine.served_model import ServedModel
from lavibridge.serve.limits import MAX_REQUEST_SEED, Limits


class ClientRequest(Config):
    """A request's body, in which null means absent."""

    @model_validator(mode="before")
    @classmethod
    def _leave_out_nulls(cls, body: Any) -> Any:
        if not isinstance(body, Mapping):
            return body
        return {key: value for key, value in body.items() if value is not None}


class PictureRequest(ClientRequest):
    """The prompt and the settings of images."""

    prompt: str
    """Description of the image."""
    model: str | None = None
    """Name of a model from `/v1/models`; by default the first."""
    n: int = Field(default=1, ge=1)
    """Number of images, with seeds seed, seed + 1, ..."""
    size: str | None = None
    """`WIDTHxHEIGHT` in pixels; by default and with `auto` the vision model's own size."""
    negative_prompt: str = ""
    """Description of what to avoid, for guidance."""
    prompt_weighting: bool = False
    """Whether `(word:1.3)` in both prompts is a word weight; otherwise brackets are plain text."""
    seed: int | None = Field(default=None, ge=0, le=MAX_REQUEST_SEED)
    """Seed of the first image's noise; random by default."""
    quality: Literal["exact", "high", "fast", "low", "medium", "standard", "hd", "xhigh", "max", "auto"] = (
        "exact"
    )
    """Trades quality for speed: `exact`, `high` or `fast`. OpenAI's `low` means `fast`; its other names mean
    `exact`."""
    num_inference_steps: int | None = Field(default=None, ge=1)
    """Number of denoising steps; by default the quality's own, 20 for `exact`."""
    guidance_scale: float | None = Field(default=None, ge=0, le=100)
    """Scale of classifier-free guidance, where 1 disables it; by default the bridge's own."""
    embed_recipe: bool = True
    """Write the recipe into the file, from which the image can be generated again."""


class ImageRequest(PictureRequest):
    """A request in the form of OpenAI's images endpoint."""

    response_format: Literal["b64_json", "url"] = "b64_json"
    """`b64_json` returns the file in base 64, `url` a URL to fetch it."""
    output_format: ImageFormat = "png"
    """The format of the file."""
    output_compression: int = Field(default=100, ge=0, le=100)
    """Quality of JPEG and WebP, from 0 (smallest file) to 100 (best image)."""
    background: Literal["auto", "opaque"] = "auto"
    """Accepted for compatibility; images are always opaque."""
    moderation: Literal["auto", "low"] = "auto"
    """Accepted and ignored; the server does not moderate."""
    stream: Literal[False] = False
    """Responses are complete; `/v1/jobs` reports progress."""
    partial_images: Literal[0] = 0
    """Always 0; `/v1/jobs` sends previews."""
    user: str | None = Field(default=None, max_length=256)
    """Accepted for OpenAI's clients and ignored."""
    safety_identifier: str | None = Field(default=None, max_length=256)
    """Accepted and ignored."""
    style: str | None = Field(default=None, max_length=64)
    """Accepted and ignored."""


class JobRequest(PictureRequest):
    """A job that reports its progress."""

    attention_maps: bool = False
    """Whether to return maps of the words that each region of the image attends to."""


class TokensRequest(ClientRequest):
    """A prompt whose tokens to count."""

    prompt: str
    """The prompt."""
    prompt_weighting: bool = False
    """Whether `(word:1.3)` is a word weight, which takes no tokens."""


def requests_of_body(
    body: PictureRequest, model: ServedModel, limits: Limits, has_attention_maps: bool = False
) -> list[Request]:
    """Create a request for each image of a body. Raises RecipeError for unsupported values."""
    check_request_prompt(body.prompt, limits, "prompt")
    check_request_prompt(body.negative_prompt, limits, "negative_prompt")
    quality = {"low": "fast"}.get(body.quality, body.quality if body.quality in QUALITIES else EXACT_QUALITY)
    steps = body.num_inference_steps or read_quality(quality).num_inference_steps
    for key, found, most in (("n", body.n, limits.count), ("num_inference_steps", steps, limits.steps)):
        if found > most:
            raise RecipeError(f"{key}: the maximum of this server is {most}, found {found}")
    vision = model.bridge.vision
    check_sampling_steps(steps, len(vision.times), "num_inference_steps")
    width, height = _size(body.size, vision.default_size, limits.side)
    work = width * height * steps * body.n
    if work > limits.pixel_steps:
        raise RecipeError(
            f"size, num_inference_steps, n: the maximum of this server is {limits.pixel_steps} pixels x "
            f"steps x images, found {width} x {height} x {steps} x {body.n} = {work}: ask for less at once"
        )
    prompts = [read_emphasis(prompt, body.prompt_weighting) for prompt in (body.prompt, body.negative_prompt)]
    if not prompts[0].text.strip():
        raise RecipeError("prompt: it is empty: describe the image")
    model.check(prompts, height, width)
    seed = secrets.randbelow(2**32) if body.seed is None else body.seed
    guidance = model.bridge.default_guidance_scale if body.guidance_scale is None else body.guidance_scale
    return [
        Request(
            model=model.name,
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


def requested_model(name: str | None, names: tuple[str, ...]) -> str:
    """Return the name of the requested model, by default the first. Raises RecipeError for an unknown one."""
    if name is None:
        return names[0]
    if name not in names:
        raise RecipeError(
            f"model: unknown name{did_you_mean(name, names)} (known models: {', '.join(names)})"
        )
    return name


def check_request_prompt(prompt: str, limits: Limits, key: str) -> None:
    """Raise RecipeError for a prompt that is too long or not valid Unicode."""
    if not is_valid_unicode(prompt):  # JSON can hold half of a surrogate pair
        raise RecipeError(f"{key}: this is not valid Unicode")
    if len(prompt.encode("utf-8")) > limits.prompt_bytes:
        raise RecipeError(f"{key}: longer than {limits.prompt_bytes} bytes of UTF-8: shorten it")


def _size(size: str | None, default: int, most: int) -> tuple[int, int]:
    """Width and height in pixels."""
    if size is None or size == "auto":
        return default, default
    sides = read_size(size, "size")
    if max(sides) > most:
        raise RecipeError(f"size: the maximum of this server is {most} pixels a side")
    return sides
