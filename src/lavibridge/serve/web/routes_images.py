"""OpenAI's images endpoint and list of models, which other people's tools already speak."""

import base64
import time
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from lavibridge.core.errors import RecipeError
from lavibridge.core.log import console
from lavibridge.generation.emphasis import read
from lavibridge.generation.sheet import Format
from lavibridge.serve.engine.job import Job, Picture
from lavibridge.serve.web.house import House
from lavibridge.serve.web.problems import problem
from lavibridge.serve.web.requests import ImageRequest, PictureRequest, TokensRequest, check_prompt, wishes
from lavibridge.serve.web.watching import until_over


class Image(BaseModel):
    """One picture."""

    b64_json: str | None = None
    url: str | None = None
    seed: int
    verdict: dict[str, dict[str, bool | str]] | None
    """The exact checker's answers, in the miniature world."""


class Images(BaseModel):
    """The answer of the images endpoint; what OpenAI's has not is an extension."""

    created: int
    data: list[Image]
    output_format: Format
    background: Literal["opaque"] = "opaque"
    size: str
    model: str
    tokens_used: int | None
    tokens_cut: int | None


class Model(BaseModel):
    """A bridge that this server has loaded."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "lavibridge"
    language: str
    connector: str
    vision: str
    default_size: str
    default_guidance: float
    max_tokens: int
    explains: bool
    """Whether it can say which words a region attended to."""
    judges: bool
    """Whether it draws the miniature world, whose checker judges its pictures."""
    batches: bool
    """Whether its pictures are drawn together."""


class Models(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[Model]


class Tokens(BaseModel):
    """Tokens of a prompt under one bridge."""

    used: int
    cut: int
    max_tokens: int


def make_router(house: House) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/v1", tags=["OpenAI"])

    @router.post("/images/generations", response_model=Images)
    async def generate(asked: ImageRequest, request: Request) -> Any:
        """Draw and answer with the pictures. A client that goes away cancels its work."""
        if asked.output_format == "png" and asked.output_compression != 100:
            raise RecipeError("output_compression: PNG loses nothing; set output_format to jpeg or webp")
        job = submit(house, asked, format=asked.output_format, compression=asked.output_compression)
        await until_over(house.desk, job, request)
        failure = failed(job)
        if failure is not None:
            house.desk.forget(job)
            return failure
        by_url = asked.response_format == "url"
        if not by_url:
            house.desk.forget(job)
        data = [
            Image(
                b64_json=None if by_url else base64.b64encode(picture.file or b"").decode(),
                url=str(request.url_for("picture", name=job.id, number=number)) if by_url else None,
                seed=picture.wish.seed,
                verdict=picture.verdict,
            )
            for number, picture in enumerate(job.pictures)
        ]
        return Images(
            created=int(job.created),
            data=data,
            output_format=job.format,
            size=f"{job.pictures[0].wish.width}x{job.pictures[0].wish.height}",
            model=job.pictures[0].wish.model,
            tokens_used=job.tokens_used,
            tokens_cut=job.tokens_cut,
        )

    @router.get("/models")
    async def models() -> Models:
        """The bridges that are loaded."""
        created = int(house.started)
        return Models(
            data=[Model(id=name, created=created, **each.describe()) for name, each in house.painters.items()]
        )

    @router.post("/tokens")
    async def tokens(asked: TokensRequest) -> dict[str, Tokens]:
        """How many of a prompt's tokens each bridge uses, and how many it cuts off."""
        check_prompt(asked.prompt, house.limits, "prompt")
        prompt = read(asked.prompt, asked.weights)
        counts = {name: painter.count_tokens(prompt) for name, painter in house.painters.items()}
        return {
            name: Tokens(used=used, cut=cut, max_tokens=house.painters[name].bridge.language.max_tokens)
            for name, (used, cut) in counts.items()
        }

    return router


def submit(
    house: House,
    asked: PictureRequest,
    is_explained: bool = False,
    format: Format = "png",
    compression: int = 100,
) -> Job:
    """Put a request into the queue; raises what the client is told."""
    made = wishes(asked, house.painters, house.limits, is_explained)
    job = Job(
        pictures=[Picture(wish=wish) for wish in made],
        is_signed=asked.embed_recipe,
        format=format,
        compression=compression,
    )
    house.desk.submit(job)
    told = f": {asked.prompt!r}" if house.logs_prompts else ""
    stamp = time.strftime("%H:%M:%S")
    console.print(f"{stamp} {len(made)} picture(s) by {made[0].model}{told}", soft_wrap=True)
    return job


def failed(job: Job) -> Response | None:
    """The answer for a job that did not end well."""
    match job.state:
        case "done":
            return None
        case "rejected":
            return problem(503, job.error or "", "closing", {"Retry-After": "30"})
        case "cancelled":
            return JSONResponse({}, 499)  # nobody reads it
        case _:
            return problem(400 if job.is_own_fault else 500, job.error or "")
