"""Toy bridges of the real classes, and a real server around them on a port of its own."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import httpx
import pytest

from lavibridge.bridge import Bridge
from lavibridge.serve.engine.served_model import ServedModel
from lavibridge.serve.limits import Limits
from lavibridge.serve.web.address import Address, address_url, bind_address
from lavibridge.serve.web.app_state import AppState
from lavibridge.serve.web.server import Server, make_app_state, server_config


def _compose(language: str, vision: str, connector: str = "lavi") -> Bridge:
    named = [{"kind": kind, "source": "random"} for kind in (language, vision)]
    return Bridge.compose(*named, connector, language_lora={"rank": 2}, vision_lora={"rank": 2}).eval()


def _eventually(holds: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def compose() -> Callable[..., Bridge]:
    """Makes a toy bridge of a language model, a vision model and a connector."""
    return _compose


@pytest.fixture(scope="session")
def eventually() -> Callable[..., None]:
    """Waits until something holds."""
    return _eventually


@pytest.fixture(scope="session")
def models() -> dict[str, ServedModel]:
    """Two toy bridges: one of an encoder, one of a decoder."""
    return {
        "first": ServedModel("first", _compose("t5", "pixart"), 8),
        "second": ServedModel("second", _compose("llama", "pixart"), 8),
    }


@dataclass(frozen=True, kw_only=True)
class Running:
    """A server that runs."""

    url: str
    app_state: AppState
    client: httpx.Client
    server: Server


@contextmanager
def _running(app_state: AppState, token: str | None = None) -> Iterator[Running]:
    """Serve a app_state from a thread."""
    address = Address(port=0, token=token)
    bound: socket.socket = bind_address(address)
    server = Server(server_config(app_state, address), app_state.queue)
    thread = threading.Thread(target=server.run, args=([bound],), daemon=True)
    thread.start()
    url = address_url(address, bound).partition("#")[0].rstrip("/")
    with httpx.Client(base_url=url, timeout=60) as client:
        _eventually(lambda: server.started)
        yield Running(url=url, app_state=app_state, client=client, server=server)
    server.should_exit = True
    app_state.queue.close()
    thread.join(20)
    app_state.worker.join(20.0)
    bound.close()
    assert not thread.is_alive()


@pytest.fixture(scope="session")
def running() -> Callable[..., AbstractContextManager[Running]]:
    """Serves a app_state from a thread."""
    return _running


@pytest.fixture(scope="module")
def served(models: dict[str, ServedModel], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server of both bridges."""
    limits = Limits(queue=12, steps=1000, count=4, side=64)
    with _running(make_app_state(models, limits, tmp_path_factory.mktemp("runs"), False)) as found:
        yield found
