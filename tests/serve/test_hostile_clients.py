"""Clients that hold connections, send half of a request, or send odd ones."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest

from lavibridge.serve.engine.served_model import ServedModel
from lavibridge.serve.limits import Limits
from lavibridge.serve.web.server import make_app_state

HALF_BODY = (
    b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
)


@pytest.fixture(scope="module")
def small(
    models: dict[str, ServedModel], running: Callable[..., AbstractContextManager[Any]], tmp_path_factory: Any
) -> Iterator[Any]:
    """A server of few connections, which waits one second for a request."""
    limits = Limits(connections=8, request_seconds=1, shutdown_seconds=5, side=64, pixel_steps=64 * 64 * 10)
    with running(make_app_state(models, limits, tmp_path_factory.mktemp("runs"), False)) as found:
        yield found


def connect(served: Any, data: bytes = b"") -> socket.socket:
    """Open a connection and send some bytes."""
    opened = socket.create_connection(("127.0.0.1", httpx.URL(served.url).port), timeout=5)
    opened.sendall(data)
    return opened


def is_closed(opened: socket.socket) -> bool:
    """Read until the server closes; False if it keeps the connection for five seconds."""
    try:
        while opened.recv(4096):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


@pytest.mark.parametrize("data", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\n", HALF_BODY])
def test_an_incomplete_request_ends(small: Any, data: bytes) -> None:
    start = time.monotonic()
    with connect(small, data) as opened:
        assert is_closed(opened)
    assert 0.5 < time.monotonic() - start < 4


def test_connections_beyond_the_limit_close_at_once_and_the_rest_is_freed(small: Any) -> None:
    held = [connect(small) for _ in range(40)]
    time.sleep(0.3)
    assert len(small.server.server_state.connections) <= 8
    assert all(is_closed(each) for each in held)
    for each in held:
        each.close()
    assert httpx.get(f"{small.url}/health").status_code == 200


def test_odd_methods_do_not_grow_the_metrics(small: Any) -> None:
    for number in range(50):
        with connect(
            small, b"ODD%d / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % number
        ) as opened:
            assert is_closed(opened)
    text = httpx.get(f"{small.url}/metrics").text
    assert "ODD" not in text
    assert 'method="other"' in text


@pytest.mark.parametrize("header", ["Host: [", "Origin: http://[", "Origin: \xff", "Authorization: \xff"])
def test_a_malformed_header_is_no_error_of_the_server(small: Any, header: str) -> None:
    lines = ["GET /health HTTP/1.1", *([] if header.startswith("Host") else ["Host: localhost"]), header]
    request = "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1")
    with connect(small, request) as opened:
        assert opened.recv(4096).split()[1] in (b"200", b"400", b"403")


def test_a_request_beyond_the_bound_names_limit_and_request(small: Any) -> None:
    body = {"prompt": "a circle", "size": "64x64", "num_inference_steps": 6, "n": 2}
    answer = httpx.post(f"{small.url}/v1/jobs", json=body)
    assert answer.status_code == 400
    assert (
        "is 40960 pixels x steps x images, found 64 x 64 x 6 x 2 = 49152" in answer.json()["error"]["message"]
    )


def test_one_model_is_described(small: Any) -> None:
    listed = httpx.get(f"{small.url}/v1/models").json()["data"][0]
    assert httpx.get(f"{small.url}/v1/models/{listed['id']}").json() == listed
    assert httpx.get(f"{small.url}/v1/models/none").status_code == 404
