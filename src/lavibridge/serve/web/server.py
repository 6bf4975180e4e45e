"""The server: loads models, serves them, and shuts down gracefully on a signal.

On the first SIGTERM, SIGHUP or Ctrl-C it finishes the jobs of one batch and answers all others with 503.
On the second it exits at once.
"""

import asyncio
import math
import os
import signal
import socket
import sys
import threading
import webbrowser
from collections.abc import Sequence
from functools import partial
from itertools import chain, count
from pathlib import Path
from types import FrameType
from typing import Any, cast

import uvicorn

from lavibridge.core.log import console
from lavibridge.core.signals import termination_signals
from lavibridge.generation.pipeline import BridgePipeline
from lavibridge.language.parts.proxy import ProxySettings
from lavibridge.serve.engine.model_pool import ModelPool
from lavibridge.serve.engine.pivot_pairs import PivotPairs
from lavibridge.serve.engine.queue import Queue
from lavibridge.serve.engine.served_model import ServedModel
from lavibridge.serve.engine.thread_count import choose_thread_count
from lavibridge.serve.engine.worker import Worker
from lavibridge.serve.limits import Limits
from lavibridge.serve.web.address import Address, address_url
from lavibridge.serve.web.app import make_app
from lavibridge.serve.web.app_state import AppState
from lavibridge.serve.web.connections import BoundedProtocol
from lavibridge.serve.web.guard import Guard, GuardedApp

_MOST_FILES = 65_536
_BACKLOG = 64


class Server(uvicorn.Server):
    """A uvicorn server that closes the queue on a signal, so that waiting clients get a response."""

    def __init__(self, config: uvicorn.Config, queue: Queue) -> None:
        super().__init__(config)
        self.queue = queue
        self.loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Remember the event loop, which closes the queue."""
        self.loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal. Unlike uvicorn, do not raise it again, since it is no failure."""
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self.queue.close)
        self.force_exit = self.should_exit
        self.should_exit = True


def load_models(
    sources: Sequence[str], device: str, batch_size: int, proxy: ProxySettings | None = None
) -> dict[str, ServedModel]:
    """Load models and name each by the last part of its path, numbered if it occurs twice.

    ``proxy`` revises the prompts of all models, in place of the proxies that they have.
    """
    models: dict[str, ServedModel] = {}
    for source in sources:
        stem = Path(source).resolve().name if Path(source).exists() else source
        numbered = (f"{stem}-{number}" for number in count(2))
        name = next(each for each in chain([stem], numbered) if each not in models)
        console.print(f"loading {name}", soft_wrap=True)
        bridge = BridgePipeline.from_pretrained(source, device=device).bridge
        if proxy is not None:
            bridge.language.use_proxy(proxy)
        models[name] = ServedModel(name, bridge, batch_size)
    return models


def make_app_state(
    models: dict[str, ServedModel],
    limits: Limits,
    runs: Path | None,
    logs_prompts: bool,
    pairs: PivotPairs | None = None,
) -> AppState:
    """Create the state of an application for loaded models and pairs of a pivot, and start its worker."""
    pool = ModelPool(models, pairs, limits.pairs)
    threads = choose_thread_count(list(pool.in_memory.values()), limits.batch_size)
    for name, model in pool.in_memory.items():
        if model.least_rows is None and not model.bridge.connector.per_block:
            console.print(
                f"note: the server generates images of {name} one at a time: on this machine batches would "
                "change rounding, or save no time",
            )
    queue = Queue(limits)
    app_state = AppState(
        models=pool,
        queue=queue,
        worker=Worker(queue, pool, threads),
        limits=limits,
        runs=runs,
        logs_prompts=logs_prompts,
    )
    app_state.worker.start()
    return app_state


def guard_server(app_state: AppState, address: Address) -> GuardedApp:
    """Create the application behind its guard."""
    app = make_app(app_state)
    guard = Guard(app, host=address.host, token=address.token, body_bytes=app_state.limits.body_bytes)
    app.state.guard = guard
    return guard


def server_config(app_state: AppState, address: Address) -> uvicorn.Config:
    """Configure uvicorn. What one client can cause writes no line to the log."""
    limits = app_state.limits
    most = min(limits.connections, max(1, _raise_file_limit() // 3))
    protocol = partial(BoundedProtocol, limits=limits, most=most)
    return uvicorn.Config(
        guard_server(app_state, address),
        http=cast(Any, protocol),
        log_level="error",
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="off",
        backlog=_BACKLOG,
        timeout_graceful_shutdown=math.ceil(limits.shutdown_seconds),
    )


def serve(app_state: AppState, address: Address, bound: socket.socket, opens: bool) -> None:
    """Serve until a signal comes."""
    server = Server(server_config(app_state, address), app_state.queue)
    if threading.current_thread() is threading.main_thread():
        for number in set(termination_signals()) - set(uvicorn.server.HANDLED_SIGNALS):
            signal.signal(number, server.handle_exit)
    if opens and _has_display():
        threading.Timer(0.5, webbrowser.open, [address_url(address, bound)]).start()
    server.run(sockets=[bound])
    app_state.queue.close()
    app_state.worker.join(app_state.limits.shutdown_seconds)


def _has_display() -> bool:
    """Whether there is a display; without one, a text browser would take over the terminal."""
    return sys.platform in ("darwin", "win32") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )


def _raise_file_limit() -> int:
    """Raise the limit of open files as far as the system allows, and return it."""
    if sys.platform == "win32":
        return _MOST_FILES
    else:
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        limit = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
        if soft < limit:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        return max(soft, limit)
