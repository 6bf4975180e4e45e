"""A served bridge whose prompts a remote model revises: what it draws, answers and does not tell."""

import base64
import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from chat_server import Answer, ChatServer, chat_server, completion, failure
from PIL import Image

from lavibridge.bridge import Bridge
from lavibridge.language.parts import chat_completions
from lavibridge.language.parts.proxy import ProxySettings
from lavibridge.serve.engine.served_model import ServedModel
from lavibridge.serve.limits import Limits
from lavibridge.serve.web.server import make_app_state

REVISED = "a cat, on a plain background"
BODY = {
    "prompt": "a cat",
    "negative_prompt": "a dog",
    "size": "32x32",
    "seed": 3,
    "num_inference_steps": 2,
    "guidance_scale": 2.0,
    "embed_recipe": False,
}


@pytest.fixture
def chat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("LAVIBRIDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(chat_completions, "FIRST_WAIT", 0.01)
    with chat_server() as chat:
        yield chat


@pytest.fixture
def served(
    chat: ChatServer,
    compose: Callable[..., Bridge],
    running: Callable[..., AbstractContextManager[Any]],
    tmp_path: Path,
) -> Iterator[Any]:
    """A server of the same bridge twice: with a proxy and without."""
    with_proxy, plain = compose("t5", "pixart"), compose("t5", "pixart")
    plain.load_state_dict(with_proxy.state_dict())
    with_proxy.language.use_proxy(ProxySettings(endpoint=chat.endpoint, model="org/writer", retries=0))
    models = {"proxy": ServedModel("proxy", with_proxy, 8), "plain": ServedModel("plain", plain, 8)}
    with running(make_app_state(models, Limits(steps=1000, side=64), tmp_path / "runs", False)) as found:
        yield found


def drawn(served: Any, **changes: Any) -> dict[str, Any]:
    answer = served.client.post("/v1/images/generations", json=BODY | changes)
    assert answer.status_code == 200, answer.text
    (made,) = answer.json()["data"]
    return dict(made)


def pixels(made: dict[str, Any]) -> bytes:
    with Image.open(io.BytesIO(base64.b64decode(made["b64_json"]))) as picture:
        return picture.tobytes()


def test_the_revised_prompt_is_drawn_and_answered_and_the_negative_prompt_stays(
    served: Any, chat: ChatServer
) -> None:
    made = drawn(served, model="proxy")
    assert made["revised_prompt"] == REVISED
    plain = drawn(served, model="plain", prompt=REVISED)
    assert plain.get("revised_prompt") is None
    assert pixels(drawn(served, model="plain")) != pixels(plain)
    assert chat.prompts == ["a cat"]
    again = drawn(served, model="proxy")
    assert pixels(again) == pixels(made) == pixels(plain)
    assert chat.prompts == ["a cat"], "the second request needs no remote model"


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (failure(503, "the weights of org/writer lie in /srv/secret"), 502, "proxy_unavailable"),
        (failure(401, "wrong key sk-secret"), 502, "proxy_unavailable"),
        (completion(None, refusal="I keep a secret"), 400, "prompt_refused"),
    ],
    ids=["unavailable", "unauthorised", "refused"],
)
def test_a_remote_model_that_fails_stops_one_request_and_tells_no_secret(
    answer: Answer, status: int, code: str, served: Any, chat: ChatServer
) -> None:
    chat.answer = lambda prompt: answer
    refused = served.client.post("/v1/images/generations", json=BODY | {"model": "proxy"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)
    assert "secret" not in refused.text
    assert chat.endpoint not in refused.text
    assert drawn(served, model="plain")["b64_json"]
