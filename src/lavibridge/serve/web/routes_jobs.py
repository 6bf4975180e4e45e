"""Routes of jobs: image generation with progress, previews and cancellation."""

from typing import Any, Literal

from fastapi import APIRouter, HTTPException
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel

from lavibridge.serve.engine.job import Job
from lavibridge.serve.web.app_state import AppState
from lavibridge.serve.web.job_watching import watch_events
from lavibridge.serve.web.requests import JobRequest
from lavibridge.serve.web.routes_images import submit_image_job


class JobPictureState(BaseModel):
    """The progress of an image."""

    recipe: dict[str, str | int | float]
    step: int
    steps: int
    is_finished: bool
    verdict: dict[str, dict[str, bool | str]] | None
    attention_maps: dict[str, Any] | None
    """Maps of the words that each region attends to."""


class JobState(BaseModel):
    """The progress of a job."""

    id: str
    object: Literal["job"]
    created: int
    status: Literal["waiting", "drawing", "done", "failed", "cancelled", "rejected"]
    error: str | None
    model: str
    tokens_used: int | None
    tokens_cut: int | None
    expected_seconds: int | None
    """About how long the job still takes; null if it is over or the server has not taken a step yet."""
    pictures: list[JobPictureState]


def make_router(app_state: AppState) -> APIRouter:
    """Create the routes."""
    router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

    @router.post("", status_code=201)
    async def create(body: JobRequest) -> JobState:
        """Start a job. The server cancels it when its last listener leaves or no client asks about it."""
        return _state(app_state, await submit_image_job(app_state, body, body.attention_maps))

    @router.get("/{name}")
    async def state(name: str) -> JobState:
        """Return the progress of a job."""
        return _state(app_state, _found(app_state, name))

    @router.get("/{name}/events", response_class=StreamingResponse)
    async def listen(name: str) -> StreamingResponse:
        """Stream the progress as server-sent events, with previews and finished images in base 64.

        The job is cancelled when its last listener leaves before the end.
        """
        return StreamingResponse(
            watch_events(app_state.queue, _found(app_state, name)), media_type="text/event-stream"
        )

    @router.get("/{name}/pictures/{number}", name="picture", response_class=Response)
    async def picture(name: str, number: int) -> Response:
        """Return a finished image."""
        job = _found(app_state, name)
        file = job.pictures[number].file if 0 <= number < len(job.pictures) else None
        if file is None:
            raise HTTPException(404, "there is no such image, or it is not finished")
        return Response(file, media_type=f"image/{job.format}")

    @router.delete("/{name}")
    async def cancel(name: str) -> JobState:
        """Cancel a job, unless it is over."""
        job = _found(app_state, name)
        app_state.queue.cancel(job)
        return _state(app_state, job)

    return router


def _found(app_state: AppState, name: str) -> Job:
    job = app_state.queue.find(name)
    if job is None:
        raise HTTPException(404, "there is no such job: its id is wrong, or it ended long ago")
    return job


def _state(app_state: AppState, job: Job) -> JobState:
    return JobState.model_validate(app_state.queue.describe(job))
