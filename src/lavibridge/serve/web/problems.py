"""Formats errors for OpenAI's clients: what is wrong and what to do, never a traceback.

{"error": {"message": ..., "type": ..., "param": null, "code": ...}}
"""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from lavibridge.core.errors import LaviError, PromptRefusedError, RemoteModelError, did_you_mean
from lavibridge.core.log import console
from lavibridge.serve.engine.model_pool import PairUnavailable
from lavibridge.serve.engine.queue import QueueFull, ServerClosing

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ProblemDetail(BaseModel):
    """The description of an error."""

    message: str
    type: str
    param: str | None
    code: str | None


class Problem(BaseModel):
    """The body of every error response."""

    error: ProblemDetail


PROBLEM_RESPONSES: Mapping[int | str, dict[str, Any]] = {
    "4XX": {"model": Problem, "description": "The request is invalid; the message says what to do."},
    502: {"model": Problem, "description": "The remote model that revises prompts is unavailable."},
    503: {"model": Problem, "description": "The server is stopping, or cannot compose the pair."},
}
"""Error responses that every route declares."""


def problem_response(
    status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Create an error response."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    text = message.encode("utf-8", "replace").decode()  # a key may hold half of a surrogate pair
    body = {"error": {"message": text, "type": kind, "param": None, "code": code}}
    return JSONResponse(body, status, headers=dict(headers or {}))


def install_problem_handlers(app: FastAPI) -> None:
    """Convert every error of ``app`` to this form."""

    @app.exception_handler(QueueFull)
    def _full(request: Request, error: QueueFull) -> JSONResponse:
        return problem_response(429, str(error), "queue_full", {"Retry-After": str(error.seconds)})

    @app.exception_handler(ServerClosing)
    def _closing(request: Request, error: ServerClosing) -> JSONResponse:
        return problem_response(503, str(error), "closing", {"Retry-After": "30"})

    @app.exception_handler(PairUnavailable)
    def _unavailable(request: Request, error: PairUnavailable) -> JSONResponse:
        return problem_response(503, str(error), "pair_unavailable")

    @app.exception_handler(PromptRefusedError)
    def _prompt_refused(request: Request, error: PromptRefusedError) -> JSONResponse:
        message = "prompt: the remote model that revises prompts refused this one: reword it"
        return problem_response(400, message, "prompt_refused")

    @app.exception_handler(RemoteModelError)
    def _no_revision(request: Request, error: RemoteModelError) -> JSONResponse:
        console.print(str(error), soft_wrap=True)
        message = "the remote model that revises prompts is unavailable; the server's log has the reason"
        return problem_response(502, message, "proxy_unavailable")

    @app.exception_handler(LaviError)
    def _refused(request: Request, error: LaviError) -> JSONResponse:
        return problem_response(400, str(error))

    @app.exception_handler(RequestValidationError)
    def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return problem_response(400, "; ".join(_explain(each, request) for each in error.errors()[:5]))

    @app.exception_handler(HTTPException)
    def _other(request: Request, error: HTTPException) -> JSONResponse:
        return problem_response(error.status_code, str(error.detail), None, error.headers)

    @app.exception_handler(Exception)
    def _unexpected(request: Request, error: Exception) -> JSONResponse:
        return problem_response(500, "internal error; the server's log has the traceback", "internal")


def _explain(error: Mapping[str, Any], request: Request) -> str:
    """Describe one validation error without echoing the value."""
    place = [str(part) for part in error["loc"] if part not in ("body", "path", "query")]
    name = ".".join(place) or "the body"
    if error["type"] == "extra_forbidden":
        keys = _keys(request.app)
        known = keys.get(request.url.path, ())
        elsewhere = " and ".join(path for path, each in keys.items() if name in each)
        meant = f"; it belongs to {elsewhere}" if elsewhere else did_you_mean(name, known)
        return f"{name[:60]}: unknown key{meant} (known keys: {', '.join(known)})"
    if error["type"] == "json_invalid":
        return "the body is not valid JSON"
    if error["type"] == "missing":
        return f"{name}: this required key is missing"
    return f"{name[:60]}: {error['msg']}"


def _keys(app: FastAPI) -> dict[str, tuple[str, ...]]:
    """Return the keys of each path's request body."""
    schema, found = app.openapi(), {}
    for path, methods in schema["paths"].items():
        bodies = [method["requestBody"] for method in methods.values() if "requestBody" in method]
        for body in bodies:
            name = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
            found[path] = tuple(schema["components"]["schemas"][name]["properties"])
    return found
