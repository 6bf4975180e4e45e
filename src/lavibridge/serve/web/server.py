"""The server: bridges are loaded and served, and signals end it in good order.

First SIGTERM, SIGHUP or Ctrl-C: what is being drawn is finished, what waits is answered with 503. Second: at
once.
"""

import asyncio
import os
import signal
import socket
import sys
import threading
import webbrowser
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path
from types import FrameType

import uvicorn

from lavibridge.bridge import Bridge
from lavibridge.core.log import console
from lavibridge.core.signals import termination_signals
from lavibridge.serve.engine.desk import Desk
from lavibridge.serve.engine.painter import Painter
from lavibridge.serve.engine.threads import choose_threads
from lavibridge.serve.engine.worker import Worker
from lavibridge.serve.limits import Limits
from lavibridge.serve.web.address import Address, url_of
from lavibridge.serve.web.app import make_app
from lavibridge.serve.web.guard import App, Guard
from lavibridge.serve.web.house import House

MOST_FILES = 65_536


class Server(uvicorn.Server):
    """Closes the desk when it is told to stop, so that waiting clients get their answer."""

    def __init__(self, config: uvicorn.Config, desk: Desk) -> None:
        super().__init__(config)
        self.desk = desk
        self.loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Remember the loop, in which the desk is closed."""
        self.loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal came. It is not raised again at the end, as uvicorn would: leaving so is no failure."""
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self.desk.close)
        self.force_exit = self.should_exit
        self.should_exit = True


def load_painters(sources: Sequence[str], device: str, batch: int) -> dict[str, Painter]:
    """Bridges by name: the last part of their path, numbered where it comes twice."""
    painters: dict[str, Painter] = {}
    for source in sources:
        stem = Path(source).resolve().name if Path(source).exists() else source
        numbered = (f"{stem}-{number}" for number in count(2))
        name = next(each for each in chain([stem], numbered) if each not in painters)
        console.print(f"loading {name}", soft_wrap=True)
        painters[name] = Painter(name, Bridge.open(source, device), batch)
    return painters


def make_house(painters: dict[str, Painter], limits: Limits, runs: Path | None, logs_prompts: bool) -> House:
    """Desk and worker for loaded bridges; the worker is started."""
    threads = choose_threads(list(painters.values()), limits.batch)
    for name, painter in painters.items():
        if painter.least is None and not painter.bridge.connector.per_block:
            console.print(
                f"note: pictures of {name} are drawn one at a time: on this machine batching would change "
                "them by rounding, or gain nothing",
            )
    desk = Desk(limits)
    house = House(
        painters=painters,
        desk=desk,
        worker=Worker(desk, painters, threads),
        limits=limits,
        runs=runs,
        logs_prompts=logs_prompts,
    )
    house.worker.start()
    return house


def guarded(house: House, address: Address) -> App:
    """The application behind its guard."""
    app = make_app(house)
    guard = Guard(app, host=address.host, token=address.token, body_bytes=house.limits.body_bytes)
    app.state.guard = guard
    return guard


def serve(house: House, address: Address, bound: socket.socket, opens: bool) -> None:
    """Serve until a signal comes."""
    _raise_file_limit()
    config = uvicorn.Config(
        guarded(house, address),
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="off",
        backlog=2048,
    )
    server = Server(config, house.desk)
    if threading.current_thread() is threading.main_thread():
        for number in set(termination_signals()) - set(uvicorn.server.HANDLED_SIGNALS):
            signal.signal(number, server.handle_exit)
    if opens and _has_display():
        threading.Timer(0.5, webbrowser.open, [url_of(address, bound)]).start()
    server.run(sockets=[bound])
    house.desk.close()
    house.worker.join(60.0)


def _has_display() -> bool:
    """Whether a browser has a window to open; else a text browser would take the terminal."""
    return sys.platform in ("darwin", "win32") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )


def _raise_file_limit() -> None:
    """Let as many clients in as the system allows."""
    if sys.platform != "win32":
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
        if soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
