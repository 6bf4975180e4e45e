"""The application with all its routes.

GET  /  /page/...                 the page                    POST /v1/images/generations  as OpenAI's
GET  /health  /metrics            state                       GET  /v1/models              bridges and pairs
POST /v1/jobs                     draw, with progress         POST /v1/tokens              tokens of a prompt
GET  /v1/jobs/ID[/events|/pictures/N]    DELETE /v1/jobs/ID   GET  /v1/runs[/NAME[/...]]   runs, read-only
"""

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse

from lavibridge import __version__
from lavibridge.serve.web import problems, routes_images, routes_jobs, routes_state
from lavibridge.serve.web.app_state import AppState

_PAGE = Path(__file__).parent.parent / "page"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def make_app(app_state: AppState) -> FastAPI:
    """Create the application without its guard."""
    app = FastAPI(
        title="lavibridge",
        version=__version__,
        description="Generates images with bridges between language models and image models.",
        docs_url=None,  # its page loads scripts from another host
        redoc_url=None,
        responses={**problems.PROBLEM_RESPONSES},
    )
    problems.install_problem_handlers(app)
    for routes in (routes_images, routes_jobs, routes_state):
        app.include_router(routes.make_router(app_state))
    _add_page(app)
    return app


def _add_page(app: FastAPI) -> None:
    files = {path.name: path for path in _PAGE.iterdir() if path.suffix in _TYPES}
    _add_file(app, "/", files["index.html"])
    for name, path in files.items():
        _add_file(app, f"/page/{name}", path)


def _add_file(app: FastAPI, route: str, path: Path) -> None:
    @app.get(route, include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(path, media_type=_TYPES[path.suffix])
