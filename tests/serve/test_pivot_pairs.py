"""Pairs of a pivot on a server: composed when they are asked for, and few at a time."""

import base64
import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import openai
import pytest
from PIL import Image
from toy_pivot import make_pivot
from typer.testing import CliRunner

from lavibridge.cli.main import app
from lavibridge.core.errors import RunError
from lavibridge.pivot import compose
from lavibridge.pivot.folder import PivotFolder
from lavibridge.serve.engine.fair_lock import FairLock
from lavibridge.serve.engine.pivot_pairs import PivotPairs
from lavibridge.serve.engine.served_model import ServedModel
from lavibridge.serve.limits import Limits
from lavibridge.serve.web.server import make_app_state

Serve = Callable[..., AbstractContextManager[Any]]
PAIRS = ["llama+sd", "llama+sd3", "bert+sd", "bert+sd3"]
SMALL = {
    "prompt": "a red circle",
    "size": "32x32",
    "seed": 3,
    "num_inference_steps": 2,
    "embed_recipe": False,
}


@pytest.fixture
def pivot(tmp_path: Path) -> PivotFolder:
    """Two toys on each side."""
    return make_pivot(tmp_path / "pivot", "first")


@pytest.fixture
def served(pivot: PivotFolder, running: Serve, tmp_path: Path) -> Iterator[Any]:
    """A server of the pivot alone, which keeps two pairs in memory."""
    pairs = PivotPairs(pivot.folder, "cpu", 2)
    with running(make_app_state({}, Limits(pairs=2, steps=1000), tmp_path / "runs", False, pairs)) as found:
        yield found


def drawn(served: Any, model: str | None) -> bytes:
    """The PNG that a model draws, without the recipe, which names the model."""
    answer = served.client.post("/v1/images/generations", json={**SMALL, "model": model})
    assert answer.status_code == 200, answer.text
    (made,) = answer.json()["data"]
    return bytes(made["b64_json"], "ascii")


def listed(served: Any) -> dict[str, Any]:
    return {model["id"]: model for model in served.client.get("/v1/models").json()["data"]}


def test_every_pair_is_a_model_for_openais_client(served: Any) -> None:
    client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)
    assert [model.id for model in client.models.list()] == PAIRS
    before = listed(served)
    assert [name for name, model in before.items() if model["is_loaded"]] == PAIRS[:1]
    assert before["bert+sd3"]["pair"] == ["bert", "sd3"]
    assert before["bert+sd3"]["default_size"] is None
    made = client.images.generate(
        model="bert+sd3",
        prompt="a red circle",
        response_format="b64_json",
        extra_body={"seed": 3, "num_inference_steps": 2},
    )
    assert made.data is not None
    with Image.open(io.BytesIO(base64.b64decode(made.data[0].b64_json or ""))) as picture:
        assert f"{picture.width}x{picture.height}" == listed(served)["bert+sd3"]["default_size"]
    assert listed(served)["bert+sd3"]["is_loaded"]
    with pytest.raises(openai.BadRequestError, match=r"model: unknown name.*bert\+sd"):
        client.images.generate(model="bert+sd4", prompt="a red circle")


def test_a_pair_draws_as_its_composed_bridge_and_again_after_it_left_memory(
    served: Any, pivot: PivotFolder, running: Serve, tmp_path: Path
) -> None:
    first = drawn(served, "bert+sd")
    assert first != drawn(served, "llama+sd")
    assert drawn(served, None) == drawn(served, "llama+sd")
    drawn(served, "llama+sd3")
    in_memory = served.app_state.models.in_memory
    assert list(in_memory) == ["llama+sd", "llama+sd3"]
    assert in_memory["llama+sd"].bridge.language is in_memory["llama+sd3"].bridge.language
    assert in_memory["llama+sd"].lock is in_memory["llama+sd3"].lock
    assert drawn(served, "bert+sd") == first
    alone = {"bert+sd": ServedModel("bert+sd", compose(pivot.folder, "bert", "sd"), 2)}
    with running(make_app_state(alone, Limits(), tmp_path / "runs", False)) as other:
        assert drawn(other, "bert+sd") == first


def test_pairs_are_composed_while_the_worker_draws(served: Any, eventually: Callable[..., None]) -> None:
    long = {**SMALL, "num_inference_steps": 1000, "model": "llama+sd"}
    job = served.client.post("/v1/jobs", json=long).json()["id"]
    eventually(lambda: served.client.get(f"/v1/jobs/{job}").json()["pictures"][0]["step"] > 2)
    drawn(served, "bert+sd3")
    assert served.client.get(f"/v1/jobs/{job}").json()["status"] == "drawing"
    served.client.delete(f"/v1/jobs/{job}")


def test_a_damaged_half_is_the_servers_business(
    served: Any, pivot: PivotFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = pivot.place("language", "bert") / "half.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    answer = served.client.post("/v1/images/generations", json={**SMALL, "model": "bert+sd"})
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "pair_unavailable"
    assert str(pivot.folder) not in answer.text
    assert "SHA-256 differs" in capsys.readouterr().err
    drawn(served, "llama+sd")


def test_a_full_queue_composes_nothing(pivot: PivotFolder, running: Serve, tmp_path: Path) -> None:
    pairs = PivotPairs(pivot.folder, "cpu", 2)
    with running(make_app_state({}, Limits(queue=1), tmp_path / "runs", False, pairs)) as served:
        answer = served.client.post("/v1/images/generations", json={**SMALL, "n": 2, "model": "bert+sd"})
        assert answer.status_code == 429
        assert list(served.app_state.models.in_memory) == ["llama+sd"]


def test_the_command_needs_something_to_serve(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["serve", "--no-open"])
    assert done.exit_code == 2
    with pytest.raises(RunError, match="is not a pivot"):
        CliRunner().invoke(
            app, ["serve", "--pivot", str(tmp_path), "--port", "0", "--no-open"], catch_exceptions=False
        )


def test_a_thread_that_takes_the_lock_again_at_once_leaves_others_a_turn() -> None:
    lock, stop, turns = FairLock(), threading.Event(), [0]

    def work() -> None:
        while not stop.is_set():
            with lock.hold():
                turns[0] += 1
                time.sleep(0.002)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(20):
            before = turns[0]
            with lock.hold():
                assert turns[0] - before <= 3
            time.sleep(0.003)
    finally:
        stop.set()
        thread.join()
