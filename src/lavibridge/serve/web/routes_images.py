"""OpenAI's images endpoint and list of models, for OpenAI's clients."""

import asyncio
import base64
import time
from dataclasses import replace
from typing import Any, Literal

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from lavibridge.core.errors import RecipeError
from lavibridge.core.log import console
from lavibridge.generation.emphasis import WeightedPrompt, read_emphasis
from lavibridge.generation.image_files import ImageFormat
from lavibridge.serve.engine.job import Job, JobImage
from lavibridge.serve.engine.served_model import ServedModel
from lavibridge.serve.web.app_state import AppState
from lavibridge.serve.web.job_watching import watch_until_over
from lavibridge.serve.web.problems import problem_response
from lavibridge.serve.web.requests import (
    ImageRequest,
    PictureRequest,
    TokensRequest,
    check_request_prompt,
    requested_model,
    requests_of_body,
)


class ImageResponse(BaseModel):
    """One image."""

    b64_json: str | None = None
    url: str | None = None
    revised_prompt: str | None = None
    """What a proxy made of the prompt, if the bridge has one."""
    seed: int
    verdict: dict[str, dict[str, bool | str]] | None
    """The checker's answers, for images of the miniature world."""


class ImagesResponse(BaseModel):
    """The response of the images endpoint; it extends OpenAI's."""

    created: int
    data: list[ImageResponse]
    output_format: ImageFormat
    background: Literal["opaque"] = "opaque"
    size: str
    model: str
    tokens_used: int | None
    tokens_cut: int | None


class ServedModelResponse(BaseModel):
    """A model of this server. What depends on its weights is null until a pair of a pivot is composed."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "lavibridge"
    pair: tuple[str, str] | None = None
    """Language model and vision model of a pair of a pivot; null for a bridge of its own."""
    is_loaded: bool = True
    """Whether it is in memory; a pair that is not yet takes seconds before its first image."""
    language: str
    connector: str
    vision: str
    default_size: str | None = None
    default_guidance_scale: float | None = None
    max_tokens: int | None = None
    has_attention_maps: bool | None = None
    """Whether it can return maps of the words that a region attends to."""
    has_checker: bool | None = None
    """Whether it generates the miniature world, whose checker verifies the images."""
    shares_calls: bool | None = None
    """Whether images share calls of the denoiser."""


class ServedModelsResponse(BaseModel):
    """All models."""

    object: Literal["list"] = "list"
    data: list[ServedModelResponse]


class TokenCounts(BaseModel):
    """Token counts of a prompt for one bridge."""

    used: int
    cut: int
    max_tokens: int


def make_router(app_state: AppState) -> APIRouter:
    """Create the routes."""
    router = APIRouter(prefix="/v1", tags=["OpenAI"])

    @router.post("/images/generations", response_model=ImagesResponse)
    async def generate(body: ImageRequest, request: Request) -> Any:
        """Generate images and return them. A client that disconnects cancels its request."""
        if body.output_format == "png" and body.output_compression != 100:
            raise RecipeError("output_compression: PNG is lossless; set output_format to jpeg or webp")
        job = await submit_image_job(
            app_state, body, format=body.output_format, compression=body.output_compression
        )
        await watch_until_over(app_state.queue, job, request)
        failure = _failed(job)
        if failure is not None:
            app_state.queue.forget(job)
            return failure
        by_url = body.response_format == "url"
        if not by_url:
            app_state.queue.forget(job)
        data = [
            ImageResponse(
                b64_json=None if by_url else base64.b64encode(picture.file or b"").decode(),
                url=str(request.url_for("picture", name=job.id, number=number)) if by_url else None,
                revised_prompt=picture.request.revised_prompt,
                seed=picture.request.seed,
                verdict=picture.verdict,
            )
            for number, picture in enumerate(job.pictures)
        ]
        return ImagesResponse(
            created=int(job.created),
            data=data,
            output_format=job.format,
            size=f"{job.pictures[0].request.width}x{job.pictures[0].request.height}",
            model=job.pictures[0].request.model,
            tokens_used=job.tokens_used,
            tokens_cut=job.tokens_cut,
        )

    @router.get("/models")
    async def models() -> ServedModelsResponse:
        """List the models: bridges, and every pair of a pivot."""
        return ServedModelsResponse(data=[_described(app_state, name) for name in app_state.models.names])

    @router.get("/models/{name:path}")
    async def one_model(name: str) -> ServedModelResponse:
        """Describe one model."""
        if name not in app_state.models.names:
            raise HTTPException(404, "there is no such model: /v1/models lists the models")
        return _described(app_state, name)

    @router.post("/tokens")
    async def tokens(body: TokensRequest) -> dict[str, TokenCounts]:
        """Count the tokens of a prompt that each model in memory uses and cuts off."""
        check_request_prompt(body.prompt, app_state.limits, "prompt")
        prompt = read_emphasis(body.prompt, body.prompt_weighting)
        return {name: _counts(model, prompt) for name, model in app_state.models.in_memory.items()}

    return router


def _described(app_state: AppState, name: str) -> ServedModelResponse:
    """Describe a model, as far as it is known before it is in memory."""
    created, pair = int(app_state.started), app_state.models.pairs.get(name)
    model = app_state.models.in_memory.get(name)
    if model is not None:
        return ServedModelResponse(id=name, created=created, pair=pair, **model.describe())
    assert pair is not None  # only pairs are composed later
    return ServedModelResponse(
        id=name,
        created=created,
        pair=pair,
        is_loaded=False,
        language=pair[0],
        connector="pivot",
        vision=pair[1],
    )


def _counts(model: ServedModel, prompt: WeightedPrompt) -> TokenCounts:
    used, cut = model.count_tokens(prompt.text)
    return TokenCounts(used=used, cut=cut, max_tokens=model.bridge.language.max_tokens)


async def submit_image_job(
    app_state: AppState,
    body: PictureRequest,
    has_attention_maps: bool = False,
    format: ImageFormat = "png",
    compression: int = 100,
) -> Job:
    """Put a job into the queue; first compose its pair and revise its prompt, if it has a pair or a proxy.

    Raises a LaviError for the client.
    """
    name = requested_model(body.model, app_state.models.names)
    model = app_state.models.find(name)
    if model is None:
        app_state.queue.require_place(body.n)
        model = await asyncio.to_thread(app_state.models.open, name)
    requests = requests_of_body(body, model, app_state.limits, has_attention_maps)
    if model.bridge.language.config.proxy is not None:
        app_state.queue.require_place(body.n)
        revised = await asyncio.to_thread(model.revise, requests[0].weighted_prompt)
        requests = [replace(request, revised_prompt=revised) for request in requests]
    job = Job(
        pictures=[JobImage(request=request) for request in requests],
        embed_recipe=body.embed_recipe,
        format=format,
        compression=compression,
    )
    app_state.queue.submit(job)
    prompt = f": {body.prompt!r}" if app_state.logs_prompts else ""
    stamp = time.strftime("%H:%M:%S")
    console.print(f"{stamp} {len(requests)} picture(s) by {requests[0].model}{prompt}", soft_wrap=True)
    return job


def _failed(job: Job) -> Response | None:
    """Return the response to a job that did not succeed, else None."""
    match job.state:
        case "done":
            return None
        case "rejected":
            return problem_response(503, job.error or "", "closing", {"Retry-After": "30"})
        case "cancelled":
            return JSONResponse({}, 499)  # the client has gone
        case _:
            return problem_response(400 if job.is_own_fault else 500, job.error or "")
