"""Routes of the server's state, and of the runs in the runs folder, read-only."""

from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import PlainTextResponse, Response
from pydantic import BaseModel

from lavibridge import __version__
from lavibridge.serve.web import metrics, runs
from lavibridge.serve.web.app_state import AppState

_REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"
"""A report is one file with embedded styles and images; its scripts are blocked."""


class ServerHealth(BaseModel):
    """Whether the server accepts jobs."""

    status: Literal["ok", "closing"]
    version: str
    needs_token: bool


def make_router(app_state: AppState) -> APIRouter:
    """Create the routes."""
    router = APIRouter()

    @router.get("/health", tags=["state"])
    async def health(request: Request) -> ServerHealth:
        """Return whether the server accepts jobs."""
        closing = app_state.queue.is_closing
        guard = request.app.state.guard
        return ServerHealth(
            status="closing" if closing else "ok",
            version=__version__,
            needs_token=guard.token is not None,
        )

    @router.get("/metrics", tags=["state"], response_class=PlainTextResponse)
    async def read_metrics(request: Request) -> Response:
        """Return the metrics for Prometheus."""
        text = metrics.metrics_exposition(app_state.queue, app_state.worker, request.app.state.guard)
        return Response(text, media_type=metrics.METRICS_TYPE)

    @router.get("/v1/runs", tags=["runs"])
    def list_runs() -> list[dict[str, Any]]:
        """List the runs in the runs folder, the latest first."""
        return [runs.run_summary(folder) for folder in _runs(app_state).values()]

    @router.get("/v1/runs/{name}", tags=["runs"])
    def run(name: str) -> dict[str, Any]:
        """Return a run with its loss curve and scores."""
        return runs.run_details(_run(app_state, name))

    @router.get("/v1/runs/{name}/samples/{sample}", tags=["runs"], response_class=Response)
    def sample(name: str, sample: str) -> Response:
        """Return a preview image of a run."""
        found = runs.run_preview(_run(app_state, name), sample)
        if found is None:
            raise HTTPException(404, "the run has no such sample")
        return Response(found, media_type="image/png")

    @router.get("/v1/runs/{name}/report", tags=["runs"], response_class=Response)
    def report(name: str) -> Response:
        """Return the report of a finished run."""
        page = runs.run_report(_run(app_state, name))
        if page is None:
            raise HTTPException(404, "the run has no report yet: lavi report writes it")
        headers = {"content-security-policy": _REPORT_POLICY}
        return Response(page, media_type="text/html", headers=headers)

    return router


def _runs(app_state: AppState) -> dict[str, Path]:
    return {} if app_state.runs is None else runs.list_runs(app_state.runs)


def _run(app_state: AppState, name: str) -> Path:
    found = _runs(app_state).get(name)
    if found is None:
        raise HTTPException(404, "there is no such run in the runs folder")
    return found
