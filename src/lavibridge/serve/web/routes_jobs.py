"""Jobs: drawing with progress, previews and a way to stop it."""

from typing import Any, Literal

from fastapi import APIRouter, HTTPException
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel

from lavibridge.serve.engine.job import Job
from lavibridge.serve.web.house import House
from lavibridge.serve.web.requests import JobRequest
from lavibridge.serve.web.routes_images import submit
from lavibridge.serve.web.watching import events


class PictureState(BaseModel):
    """How far a picture is."""

    recipe: dict[str, str | int | float]
    step: int
    steps: int
    is_finished: bool
    verdict: dict[str, dict[str, bool | str]] | None
    why: dict[str, Any] | None
    """Maps of what each region attended to, by word."""


class JobState(BaseModel):
    """How far a job is."""

    id: str
    object: Literal["job"]
    created: int
    status: Literal["waiting", "drawing", "done", "failed", "cancelled", "rejected"]
    error: str | None
    model: str
    tokens_used: int | None
    tokens_cut: int | None
    pictures: list[PictureState]


def make_router(house: House) -> APIRouter:
    """The routes."""
    router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

    @router.post("", status_code=201)
    async def create(asked: JobRequest) -> JobState:
        """Begin a job. It is cancelled when its last listener leaves, or when nobody asks for it."""
        return _state(submit(house, asked, asked.explain))

    @router.get("/{name}")
    async def state(name: str) -> JobState:
        """How far a job is."""
        return _state(_found(house, name))

    @router.get("/{name}/events", response_class=StreamingResponse)
    async def listen(name: str) -> StreamingResponse:
        """The same as server-sent events, with previews and finished pictures in base 64.

        Who leaves before the end, and is the only one listening, cancels the job.
        """
        return StreamingResponse(events(house.desk, _found(house, name)), media_type="text/event-stream")

    @router.get("/{name}/pictures/{number}", name="picture", response_class=Response)
    async def picture(name: str, number: int) -> Response:
        """A finished picture."""
        job = _found(house, name)
        file = job.pictures[number].file if 0 <= number < len(job.pictures) else None
        if file is None:
            raise HTTPException(404, "there is no such picture, or it is not finished")
        return Response(file, media_type=f"image/{job.format}")

    @router.delete("/{name}")
    async def cancel(name: str) -> JobState:
        """Stop a job; one that is over stays as it is."""
        job = _found(house, name)
        house.desk.cancel(job)
        return _state(job)

    return router


def _found(house: House, name: str) -> Job:
    job = house.desk.find(name)
    if job is None:
        raise HTTPException(404, "there is no such job: it was never begun, or is long over")
    return job


def _state(job: Job) -> JobState:
    return JobState.model_validate(job.describe())
