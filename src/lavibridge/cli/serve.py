"""`lavi serve`: serves bridges to a browser, and to other tools through an API."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lavibridge.cli.generate import PROXY, read_proxy

if TYPE_CHECKING:
    from lavibridge.serve.web.address import Address

_RUNS = typer.Argument(
    None,
    metavar="[RUN...]",
    help="Run folders, checkpoints or saved bridges (folders or hub ids); or vision models, shipped "
    "(mini-sd), folders or hub ids, to use with their own text encoder. The page shows several side by side.",
)
_PIVOT = typer.Option(
    None,
    "--pivot",
    metavar="FOLDER",
    help="A pivot (see `lavi pivot`), of which the page offers every language model with every image model.",
)
_HOST = typer.Option(
    "127.0.0.1", "--host", help="Address to bind; an address other than this machine's own needs a token."
)
_PORT = typer.Option(8765, "--port", min=0, max=65535, help="Port; 0 chooses a free one.")
_TOKEN = typer.Option(
    None,
    "--token",
    envvar="LAVI_TOKEN",
    help="Secret that every request must send; prefer $LAVI_TOKEN, which other users cannot see.",
)
_RUNS_FOLDER = typer.Option(
    Path("runs"), "--runs", metavar="FOLDER", help="Folder whose runs the page shows, read-only."
)
_DEVICE = typer.Option("auto", "--device", help="auto, cpu, cuda, cuda:1 or mps.")
_BATCH_SIZE = typer.Option(
    8, "--batch-size", min=1, max=64, help="Images generated at a time; on a CPU it changes no image."
)
_QUEUE = typer.Option(64, "--queue", min=1, help="Images that may wait; clients get 429 if there are more.")
_MOST_STEPS = typer.Option(100, "--max-steps", min=1, max=1000, help="Maximum denoising steps of an image.")
_MOST_SIDE = typer.Option(1024, "--max-side", min=8, help="Maximum side of an image, in pixels.")
_MOST_COUNT = typer.Option(10, "--max-count", min=1, max=64, help="Maximum number of images per request.")
_MOST_PIXEL_STEPS = typer.Option(
    2**28, "--max-pixel-steps", min=1, help="Maximum height x width x steps x images of a request."
)
_OPEN = typer.Option(True, "--open/--no-open", help="Open the page in a browser, if there is one.")
_LOG_PROMPTS = typer.Option(False, "--log-prompts", help="Log prompts.  [default: the log has none]")


def serve(
    runs: list[str] | None = _RUNS,
    pivot: Path | None = _PIVOT,
    proxy: str | None = PROXY,
    host: str = _HOST,
    port: int = _PORT,
    token: str | None = _TOKEN,
    runs_folder: Path = _RUNS_FOLDER,
    device: str = _DEVICE,
    batch_size: int = _BATCH_SIZE,
    queue: int = _QUEUE,
    max_steps: int = _MOST_STEPS,
    max_side: int = _MOST_SIDE,
    max_count: int = _MOST_COUNT,
    max_pixel_steps: int = _MOST_PIXEL_STEPS,
    opens: bool = _OPEN,
    log_prompts: bool = _LOG_PROMPTS,
) -> None:
    """Serve bridges through a web page and an API.

    \b
    lavi serve runs/quickstart
    lavi serve runs/quickstart runs/minilm mini-sd         side by side, on the same seeds
    lavi serve --pivot pivots/mini                         choose language model and image model separately
    LAVI_TOKEN=... lavi serve runs/quickstart --host 0.0.0.0

    The API is OpenAI's for images (POST /v1/images/generations), extended by jobs and progress; its schema is
    at /openapi.json. Prints the page's URL on stdout. Ctrl-C finishes the current images first.
    """
    if not runs and pivot is None:
        raise typer.BadParameter("name a run, a bridge or a vision model to serve, or a --pivot")
    address = _address(host, port, token)
    from lavibridge.serve.web.address import address_url, bind_address

    with bind_address(address) as bound:
        from lavibridge.serve.engine.pivot_pairs import PivotPairs
        from lavibridge.serve.limits import Limits
        from lavibridge.serve.web import server

        limits = Limits(
            queue=queue,
            batch_size=batch_size,
            count=max_count,
            steps=max_steps,
            side=max_side,
            pixel_steps=max_pixel_steps,
        )
        revising = None if proxy is None else read_proxy(proxy)
        pairs = None if pivot is None else PivotPairs(pivot, device, batch_size, revising)
        app_state = server.make_app_state(
            server.load_models(runs or [], device, batch_size, revising),
            limits,
            runs_folder,
            log_prompts,
            pairs,
        )
        print(address_url(address, bound), flush=True)
        server.serve(app_state, address, bound, opens)


def _address(host: str, port: int, token: str | None) -> "Address":
    """Return the address to serve at. Raises RunError without the extra `serve`, or if the address
    needs a token or a better one."""
    try:
        from lavibridge.serve.web.address import Address, check_address
    except ImportError as error:
        from lavibridge.core.errors import RunError

        if error.name not in ("fastapi", "starlette", "uvicorn"):
            raise
        raise RunError(f"serving needs the package {error.name}: pip install 'lavibridge[serve]'") from None
    address = Address(host=host, port=port, token=token or None)
    check_address(address)
    return address
