"""`lavi doctor` compares versions as numbers, reads the network setting, and finds a damaged model."""

import http.server
import os
import socket
import subprocess
import sys
import threading

import pytest
from typer.testing import CliRunner

from lavibridge.cli import doctor
from lavibridge.cli.main import app


def network_line(**settings: str) -> str:
    """What a process with these settings says of the network."""
    code = "from lavibridge.cli.doctor import _network as n; f = n(); print(f.state, f.result)"
    left = {name: value for name, value in os.environ.items() if "OFFLINE" not in name}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**left, "NO_PROXY": "*", **settings},
        capture_output=True,
        text=True,
    )
    return done.stdout


@pytest.mark.parametrize(
    ("found", "floor", "is_older"),
    [
        ("2.9.1", "2.10", True),
        ("2.10", "2.10", False),
        ("2.13.0+cpu", "2.10", False),
        ("5.3.0", "5.3", False),
        ("4.57.1", "5.3", True),
        ("12", "12", False),
    ],
)
def test_versions_are_compared_as_numbers(found: str, floor: str, is_older: bool) -> None:
    assert doctor.is_older_version(found, floor) is is_older


def test_the_doctor_looks_at_everything() -> None:
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code in (0, 1)
    for subject in (
        "torch",
        "transformers",
        "diffusers",
        "torchvision",
        "python",
        "device",
        "threads",
        "memory",
        "minilm",
        "smollm2",
    ):
        assert f" {subject} " in done.stdout
    bad = [line for line in done.stdout.splitlines() if line.startswith("bad")]
    assert (done.exit_code == 1) == bool(bad)


def test_an_old_library_is_bad_and_the_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor.VERSION_FLOORS, "torch", ("999.0", "a reason"))
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 1
    assert "bad   torch" in done.stdout
    assert "a reason" in done.stdout


@pytest.mark.parametrize("setting", ["1", "TRUE"])
def test_offline_nobody_is_asked(setting: str) -> None:
    line = network_line(HF_HUB_OFFLINE=setting, HF_ENDPOINT="http://127.0.0.1:9")
    assert line.startswith("ok ")
    assert "offline (HF_HUB_OFFLINE is set)" in line


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers with the status that its path names."""

    def do_HEAD(self) -> None:
        self.send_response(int(self.path.strip("/")))
        self.end_headers()

    def log_message(self, *told: object) -> None:
        pass


@pytest.mark.parametrize(
    ("status", "start", "said"),
    [
        (200, "ok ", "answers"),
        (404, "ok ", "answers"),
        (403, "note ", "cannot be reached (status 403)"),
        (503, "note ", "cannot be reached (status 503)"),
    ],
)
def test_the_hub_that_is_set_is_asked(status: int, start: str, said: str) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/{status}"
        line = network_line(HF_ENDPOINT=address)
        server.shutdown()
    assert line.startswith(start)
    assert address in line
    assert said in line


def test_no_network_is_found_out_soon() -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        closed = network_line(HF_ENDPOINT=f"http://127.0.0.1:{mute.getsockname()[1]}")
    assert closed.startswith("note ")
    assert "refused" in closed
