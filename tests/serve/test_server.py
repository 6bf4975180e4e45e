"""Where the server listens, under which names it knows its bridges, and the command that starts it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from lavibridge.bridge import Bridge
from lavibridge.core.errors import RunError
from lavibridge.serve.web.address import Address, address_url, bind_address
from lavibridge.serve.web.server import load_models

LAVI = Path(sys.executable).parent / "lavi"


@pytest.fixture(scope="module")
def saved(compose: Callable[..., Bridge], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy bridge on disk."""
    folder = tmp_path_factory.mktemp("saved") / "toy"
    compose("t5", "pixart").save_pretrained(folder)
    return folder


def test_the_page_is_named_by_its_address() -> None:
    with bind_address(Address(port=0)) as bound:
        port = bound.getsockname()[1]
        assert address_url(Address(), bound) == f"http://127.0.0.1:{port}/"
        assert address_url(Address(host="::1"), bound) == f"http://[::1]:{port}/"
        assert (
            address_url(Address(host="0.0.0.0", token="abc"), bound) == f"http://127.0.0.1:{port}/#token=abc"
        )
        with pytest.raises(RunError, match="give another --port"):
            bind_address(Address(port=port))


def test_bridges_of_one_name_are_numbered(saved: Path) -> None:
    models = load_models([str(saved), str(saved)], "cpu", 1)
    assert list(models) == ["toy", "toy-2"]
    assert [model.name for model in models.values()] == ["toy", "toy-2"]


def test_the_command_serves_and_ends_in_good_order(saved: Path, tmp_path: Path) -> None:
    server = subprocess.Popen(
        [str(LAVI), "serve", str(saved), "--port", "0", "--no-open", "--device", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    body = {"prompt": "a red circle", "num_inference_steps": 1}
    assert httpx.get(f"{url}health", timeout=60).json()["status"] == "ok"
    assert "lavibridge" in httpx.get(url, timeout=60).text
    assert httpx.post(f"{url}v1/images/generations", json=body, timeout=60).status_code == 200
    server.send_signal(signal.SIGTERM)
    _, said = server.communicate(timeout=60)
    assert server.returncode == 0
    assert "1 picture(s) by toy" in said
    assert "red circle" not in said, "prompts stay out of the log"


def test_other_machines_are_not_let_in_by_accident(saved: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "LAVI_TOKEN"}
    done = subprocess.run(
        [str(LAVI), "serve", str(saved), "--host", "0.0.0.0"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: --host 0.0.0.0 gives other machines access: set a token")
