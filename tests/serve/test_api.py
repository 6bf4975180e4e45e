"""The API over real sockets: OpenAI's own client, jobs with progress, limits, and clients that go away."""

import base64
import io
import json
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from PIL import Image

from lavibridge.serve.engine.served_model import ServedModel
from lavibridge.serve.limits import Limits
from lavibridge.serve.web.server import make_app_state

Running = Any
Serve = Callable[..., AbstractContextManager[Running]]
LONG = {"prompt": "a red circle", "num_inference_steps": 1000, "size": "16x16", "model": "first"}
SHORT = {"prompt": "a red circle", "num_inference_steps": 1, "size": "16x16"}


def events(client: httpx.Client, job: str) -> list[dict[str, Any]]:
    with client.stream("GET", f"/v1/jobs/{job}/events") as answer:
        lines = [line for line in answer.iter_lines() if line.startswith("data: ")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def is_idle(served: Running) -> bool:
    return served.app_state.queue.counts() == (0, 0)


def test_the_openai_client_draws(served: Running) -> None:
    client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)
    assert [model.id for model in client.models.list()] == ["first", "second"]
    made = client.images.generate(
        model="second",
        prompt="a red circle",
        n=2,
        size="16x16",  # type: ignore[arg-type]
        response_format="b64_json",
        extra_body={"seed": 3, "num_inference_steps": 2, "guidance_scale": 2.0, "negative_prompt": "blue"},
    )
    assert made.data is not None
    assert len(made.data) == 2
    with Image.open(io.BytesIO(base64.b64decode(made.data[0].b64_json or ""))) as picture:
        assert picture.size == (16, 16)
        recipe = json.loads(picture.text["lavibridge"])  # type: ignore[attr-defined]
    assert recipe["seed"] == 3
    assert recipe["model"] == "second"
    linked = client.images.generate(prompt="a red circle", size="16x16", response_format="url")  # type: ignore[call-overload]
    assert httpx.get(linked.data[0].url).content.startswith(b"\x89PNG")
    with pytest.raises(openai.BadRequestError, match="model: unknown name"):
        client.images.generate(model="third", prompt="a red circle")


NULLS = ("n", "size", "quality", "response_format", "style", "user", "model", "background", "moderation")
MORE_NULLS = ("output_format", "output_compression", "stream", "partial_images", "safety_identifier")


def test_a_null_is_a_key_that_is_not_given(served: Running) -> None:
    client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)
    more = {"seed": 3, "num_inference_steps": 1}
    nulls: dict[str, Any] = dict.fromkeys((*NULLS, *MORE_NULLS))
    found = client.images.generate(prompt="a cat", extra_body=more, **nulls)
    expected = client.images.generate(prompt="a cat", extra_body=more)
    ours = dict.fromkeys(("negative_prompt", "guidance_scale", "prompt_weighting", "embed_recipe"))
    extended = client.images.generate(prompt="a cat", extra_body={**more, **ours})
    pictures = {made.data[0].b64_json for made in (found, expected, extended) if made.data}
    assert len(pictures) == 1
    assert (found.output_format, found.background, found.size) == ("png", "opaque", "32x32")
    job = served.client.post("/v1/jobs", json={**SHORT, "attention_maps": None, "n": None})
    assert job.status_code == 201


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_pictures_come_in_the_format_that_is_asked_for(served: Running, format: str) -> None:
    client = openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)
    body: Any = {
        "prompt": "a naïve cat",
        "output_format": format,
        "background": "opaque",
        "moderation": "low",
        "extra_body": {"seed": 3, "num_inference_steps": 1},
    }
    (made,) = client.images.generate(**body).data or ()
    file = base64.b64decode(made.b64_json or "")
    with Image.open(io.BytesIO(file)) as picture:
        assert picture.format == format.upper()
        assert picture.size == (32, 32)
        kept = picture.getexif()[0x010E] if format != "png" else json.dumps(picture.text)  # type: ignore[attr-defined]
    assert json.loads(json.loads(kept)["lavibridge"])["prompt"] == "a naïve cat"
    (linked,) = client.images.generate(**body, response_format="url").data or ()
    fetched = httpx.get(linked.url or "")
    assert (fetched.headers["content-type"], fetched.content) == (f"image/{format}", file)
    if format != "png":
        (small,) = client.images.generate(**body, output_compression=5).data or ()
        assert len(base64.b64decode(small.b64_json or "")) < len(file)


@pytest.mark.parametrize(("weights", "is_weighted"), [(None, False), (False, False), (True, True)])
def test_brackets_are_weights_where_a_request_says_so(
    served: Running, weights: bool | None, is_weighted: bool
) -> None:
    def drawn(prompt: str, weights: bool | None) -> bytes:
        more = {"seed": 3, "embed_recipe": False, "prompt_weighting": weights, "num_inference_steps": 4}
        answer = served.client.post("/v1/images/generations", json={**SHORT, "prompt": prompt, **more})
        return base64.b64decode(answer.json()["data"][0]["b64_json"])

    text = drawn(r"a \(red:9\) circle", True)
    assert (drawn("a (red:9) circle", weights) != text) == is_weighted
    counts = [
        served.client.post("/v1/tokens", json={"prompt": prompt, "prompt_weighting": weights}).json()[
            "first"
        ]["used"]
        for prompt in ("a (red:9) circle", "a red circle")
    ]
    assert (counts[0] == counts[1]) == is_weighted


def test_the_python_of_the_guide_runs(served: Running) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "serve.md").read_text(encoding="utf-8")
    code = guide.split("```python\n")[1].split("```")[0]
    assert "http://127.0.0.1:8765" in code
    assert 'model="quickstart"' in code
    names: dict[str, Any] = {}
    exec(code.replace("http://127.0.0.1:8765", served.url).replace('"quickstart"', '"first"'), names)
    assert len(names["response"].data) == 2


@pytest.mark.parametrize(
    ("body", "quality", "steps"), [("fast", "fast", 12), ("low", "fast", 12), ("hd", "exact", 20)]
)
def test_a_quality_brings_its_own_steps(served: Running, body: str, quality: str, steps: int) -> None:
    request = {"prompt": "a red circle", "size": "16x16", "quality": body}
    made = served.client.post("/v1/images/generations", json=request).json()["data"][0]["b64_json"]
    with Image.open(io.BytesIO(base64.b64decode(made))) as picture:
        recipe = json.loads(picture.text["lavibridge"])  # type: ignore[attr-defined]
    assert (recipe["quality"], recipe["num_inference_steps"]) == (quality, steps)


def test_the_same_request_gives_the_same_bytes(served: Running) -> None:
    pictures = {
        served.client.post("/v1/images/generations", json={**SHORT, "seed": 5}).json()["data"][0]["b64_json"]
        for _ in range(2)
    }
    assert len(pictures) == 1


def test_a_job_tells_its_progress_and_ends_with_pictures(served: Running) -> None:
    made = served.client.post(
        "/v1/jobs", json={**SHORT, "num_inference_steps": 12, "n": 2, "attention_maps": True}
    )
    assert made.status_code == 201
    told = events(served.client, made.json()["id"])
    steps = [each["pictures"][0]["step"] for each in told]
    assert steps == sorted(steps)
    last = told[-1]
    assert last["status"] == "done"
    assert last["tokens_used"] > 0
    assert last["pictures"][1]["recipe"]["seed"] == last["pictures"][0]["recipe"]["seed"] + 1
    assert last["pictures"][0]["attention_maps"]["maps"]
    assert any("preview" in picture for each in told for picture in each["pictures"])
    sent = [picture["b64_json"] for each in told for picture in each["pictures"] if "b64_json" in picture]
    assert len(sent) == 2
    path = f"/v1/jobs/{last['id']}"
    assert served.client.get(f"{path}/pictures/0").content == base64.b64decode(sent[0])
    assert served.client.get(path).json()["status"] == "done"
    assert served.client.get(f"{path}/pictures/7").status_code == 404
    assert served.client.get("/v1/jobs/nothing").status_code == 404


def test_a_job_is_cancelled_at_once(served: Running, eventually: Callable[..., None]) -> None:
    job = served.client.post("/v1/jobs", json=LONG).json()["id"]
    eventually(lambda: served.client.get(f"/v1/jobs/{job}").json()["pictures"][0]["step"] > 0)
    assert served.client.delete(f"/v1/jobs/{job}").json()["status"] == "cancelled"
    eventually(lambda: is_idle(served))
    assert events(served.client, job)[-1]["status"] == "cancelled"


@pytest.mark.parametrize("path", ["/v1/images/generations", "events"])
def test_a_client_that_goes_away_frees_its_place(
    served: Running, eventually: Callable[..., None], path: str
) -> None:
    if path == "events":
        path = f"/v1/jobs/{served.client.post('/v1/jobs', json=LONG).json()['id']}/events"
        body = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    else:
        body = json.dumps(LONG)
        body = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        )
    with socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2]))) as connection:
        connection.sendall(body.encode())
        eventually(lambda: served.app_state.queue.counts()[1] == 1)
        job = served.app_state.queue.jobs()[-1]
        assert job.pictures[0].step < 1000
    eventually(lambda: is_idle(served))
    assert job.state == "cancelled"


def test_a_full_queue_says_when_to_come_again(served: Running, eventually: Callable[..., None]) -> None:
    jobs = [served.client.post("/v1/jobs", json={**LONG, "n": 4}).json()["id"] for _ in range(3)]
    refused = served.client.post("/v1/images/generations", json=SHORT)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["code"] == "queue_full"
    for job in jobs:
        served.client.delete(f"/v1/jobs/{job}")
    eventually(lambda: is_idle(served))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"prompt": " "}, "it is empty"),
        ({"prompt": "a" * 5000}, "longer than 4096 bytes"),
        ({"negative_prompt": "é" * 2100}, "longer than 4096 bytes"),
        ({"prompt": "(:2)", "prompt_weighting": True}, "it is empty"),
        (
            {"attention_maps": True},
            "attention_maps: unknown key; it belongs to /v1/jobs (known keys: prompt,",
        ),
        ({"output_format": "gif"}, "output_format: "),
        ({"output_compression": 50}, "jpeg or webp"),
        ({"background": "transparent"}, "background: "),
        ({"stream": True}, "stream: "),
        ({"partial_images": 2}, "partial_images: "),
        ({"frame_count": 3}, "frame_count: unknown key"),
        ({"prompt": None}, "prompt"),
        ({"n": 5}, "the maximum of this server is 4"),
        ({"n": 0}, "n: "),
        ({"num_inference_steps": 1001}, "the maximum of this server is 1000"),
        ({"quality": "best"}, "quality: "),
        ({"size": "4096x16"}, "64 pixels"),
        ({"size": "17x17"}, "multiples"),
        ({"size": "big"}, "WIDTHxHEIGHT"),
        ({"size": "1" * 30 + "x16"}, "WIDTHxHEIGHT"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**60}, "seed"),
        ({"model": "../../etc/passwd"}, "model: unknown name"),
        ({"guidance_scale": "NaN"}, "guidance_scale"),
        ({"gidance_scale": 3}, "did you mean 'guidance_scale'"),
    ],
)
def test_what_cannot_be_had_is_refused_with_a_reason(
    served: Running, change: dict[str, Any], told: str
) -> None:
    answer = served.client.post("/v1/images/generations", json={**SHORT, **change})
    assert answer.status_code == 400
    assert told in answer.json()["error"]["message"]
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "a", "\\ud800": 1}',
        b'"text"',
        b"null",
    ],
)
def test_broken_bodies_are_refused(served: Running, content: bytes) -> None:
    answer = served.client.post("/v1/jobs", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_long_bodies_are_not_read(served: Running) -> None:
    json_type = {"content-type": "application/json"}
    assert served.client.post("/v1/jobs", content=b" " * 70_000, headers=json_type).status_code == 413

    def drops() -> Any:
        yield from (b" " * 1000 for _ in range(100))

    assert served.client.post("/v1/jobs", content=drops(), headers=json_type).status_code == 413
    assert served.client.post("/v1/jobs", content=b"{}").status_code == 415
    assert served.client.post("/v1/jobs", data={"prompt": "a"}).status_code == 415


def test_other_sites_and_names_are_turned_away(served: Running) -> None:
    for headers in (
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": ""},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ):
        assert served.client.get("/v1/models", headers=headers).status_code == 403, headers
    assert served.client.get("/v1/models", headers={"Origin": served.url}).status_code == 200


def test_every_answer_carries_the_policy(served: Running) -> None:
    for path in ("/", "/page/main.js", "/v1/models", "/nothing", "/health"):
        headers = served.client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers
    for path in ("/page/../app.py", "/page/%2e%2e/app.py", "/page/nothing.js", "/page//etc/passwd"):
        assert served.client.get(path).status_code == 404


def test_metrics_and_tokens(served: Running) -> None:
    served.client.post("/v1/images/generations", json=SHORT)
    lines = served.client.get("/metrics").text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert int(values["lavi_pictures_total"]) >= 1
    assert int(values["process_resident_memory_bytes"]) > 2**20
    drawn = [name for name in values if "/v1/images/generations" in name and 'status="200"' in name]
    assert len(drawn) == 1
    counts = served.client.post("/v1/tokens", json={"prompt": "a red circle " * 200}).json()
    assert counts["first"]["cut"] > 0
    assert counts["first"]["used"] == counts["first"]["max_tokens"]


def test_without_the_token_nothing_but_the_page_is_had(
    models: dict[str, ServedModel], running: Serve, tmp_path: Path
) -> None:
    token = "a-token-of-some-length"
    with running(make_app_state(models, Limits(), tmp_path, False), token) as served:
        routes = (
            served.app_state
            and served.client.get("/openapi.json", headers={"Authorization": f"Bearer {token}"}).json()[
                "paths"
            ]
        )
        opened = []
        for path, methods in {**routes, "/openapi.json": {"get": {}}, "/": {"get": {}}}.items():
            for method in methods:
                for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {token}"}):
                    answer = served.client.request(
                        method, path.replace("{", "").replace("}", ""), headers=headers
                    )
                    if answer.status_code != 401:
                        opened.append(path)
        assert set(opened) == {"/", "/health"}
        assert served.client.get("/health").json()["needs_token"] is True
        allowed = served.client.get("/v1/models", headers={"Authorization": f"Bearer {token}"})
        assert allowed.status_code == 200


def test_stopping_answers_everybody(
    models: dict[str, ServedModel], running: Serve, tmp_path: Path, eventually: Callable[..., None]
) -> None:
    with running(make_app_state(models, Limits(batch_size=1), tmp_path, False)) as served:
        answers: list[httpx.Response] = []

        def ask() -> None:
            body = {**LONG, "num_inference_steps": 60}
            answers.append(httpx.post(f"{served.url}/v1/images/generations", json=body, timeout=60))

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        eventually(lambda: served.app_state.queue.counts() == (0, 3))
        served.server.handle_exit(signal.SIGTERM, None)
        for thread in threads:
            thread.join(60)
    assert sorted(answer.status_code for answer in answers) == [200, 503, 503]
    told = next(answer for answer in answers if answer.status_code == 503)
    assert "stopping" in told.json()["error"]["message"]
