"""Saved bridges: the format that is read, and the way to the hub and back through its real client."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from lavibridge import Bridge, BridgePipeline
from lavibridge.core.errors import ModelError, RunError


def compose() -> Bridge:
    toys = ({"kind": kind, "source": "random"} for kind in ("t5", "pixart"))
    return Bridge.compose(*toys, "lavi", {"rank": 2}, {"rank": 2}).eval()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"format": 2}, r"format 2, written by lavibridge .* reads format 3: load it with the version"),
        ({"format": 2, "lavibridge": None}, "format 2, written by an earlier version"),
        ({"distilled_guidance_scale": None}, "'distilled_guidance_scale' is missing or invalid"),
        ({"folded": None}, "'folded' is missing or invalid"),
    ],
)
def test_another_format_is_refused_and_never_read_as_this_one(
    tmp_path: Path, change: dict[str, Any], match: str
) -> None:
    """None takes a key out."""
    compose().save_pretrained(tmp_path)
    description = json.loads((tmp_path / "bridge.json").read_text())
    assert description["format"] == 3
    changed = {
        name: value for name, value in (description | change).items() if change.get(name, 0) is not None
    }
    (tmp_path / "bridge.json").write_text(json.dumps(changed))
    with pytest.raises(RunError, match=match):
        Bridge.from_pretrained(tmp_path, device="cpu")


COMMIT = "0" * 40


class Hub(BaseHTTPRequestHandler):
    """The parts of the hub's HTTP interface that an upload and a download use."""

    files: dict[str, bytes]

    def log_message(self, *args: object) -> None:
        """Nothing is printed."""

    def _answer(self, content: bytes, **headers: str) -> None:
        self.send_response(200)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, value: object) -> None:
        self._answer(json.dumps(value).encode(), Content_Type="application/json")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "/preupload/" in self.path:
            paths = [each["path"] for each in json.loads(body)["files"]]
            self._json(
                {"files": [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]}
            )
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._json(
                {"commitUrl": f"{constants.ENDPOINT}/somebody/toy/commit/{COMMIT}", "commitOid": COMMIT}
            )
        else:
            self._json({"url": f"{constants.ENDPOINT}/somebody/toy", "errors": [], "warnings": []})

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if "/resolve/" in path:
            content = self.files.get(path.split("/resolve/")[1].partition("/")[2])
            if content is None:
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("X-Repo-Commit", COMMIT)
                self.end_headers()
                return
            self._answer(content, ETag=f'"{hash(content)}"', X_Repo_Commit=COMMIT)
        elif "/tree/" in path:
            self._json(
                [
                    {"type": "file", "path": name, "size": len(data), "oid": COMMIT}
                    for name, data in self.files.items()
                ]
            )
        else:
            siblings = [{"rfilename": name} for name in self.files]
            self._json(
                {
                    "id": "somebody/toy",
                    "modelId": "somebody/toy",
                    "sha": COMMIT,
                    "siblings": siblings,
                    "private": False,
                    "tags": [],
                    "downloads": 0,
                    "likes": 0,
                }
            )

    do_HEAD = do_GET


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """A hub of our own on this machine; yields the files of its one repository."""
    handler = type("OwnHub", (Hub,), {"files": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield handler.files  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_a_pushed_bridge_comes_back_the_same(hub: dict[str, bytes]) -> None:
    pipe = BridgePipeline(compose())
    url = pipe.push_to_hub("somebody/toy", token="hf_of_nobody")
    assert url.endswith(COMMIT)
    assert {"README.md", "bridge.json", "connector/model.safetensors"} <= set(hub)
    assert b"library_name: lavibridge" in hub["README.md"]
    again = BridgePipeline.from_pretrained("somebody/toy", device="cpu")
    ours, theirs = (each.bridge.connector.state_dict() for each in (pipe, again))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert Bridge.from_pretrained("somebody/toy", device="cpu").origin["folder"].endswith(COMMIT)


def test_what_nobody_else_could_load_is_not_pushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = compose()
    monkeypatch.setattr(
        bridge.language, "config", bridge.language.config.model_copy(update={"source": str(tmp_path)})
    )
    with pytest.raises(ModelError, match="exists on this machine only"):
        BridgePipeline(bridge).push_to_hub("somebody/toy")


def test_an_id_that_the_hub_has_not_is_an_error_that_names_both_places(hub: dict[str, bytes]) -> None:
    with pytest.raises(RunError, match=r"no folder 'somebody/toy'|holds no bridge\.json"):
        BridgePipeline.from_pretrained("somebody/toy", device="cpu")
