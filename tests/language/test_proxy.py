"""A proxy against a real HTTP server: what is sent and kept, what fails and how, and where no key ever is."""

import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_server import KEY, Answer, ChatServer, chat_server, completion, failure, revise

from lavibridge.bridge import Bridge
from lavibridge.bridge.choices import model_of_choice
from lavibridge.bridge.identity import bridge_identity
from lavibridge.core.config import validate_config
from lavibridge.core.contracts import LAST_LAYER
from lavibridge.core.errors import PromptRefusedError, RecipeError, RemoteModelError
from lavibridge.generation.pipeline import BridgePipeline
from lavibridge.language.parts import chat_completions
from lavibridge.language.parts.proxy import Proxy, ProxySettings
from lavibridge.recipes.recipe import dump_recipe, load_recipe
from lavibridge.training.cache.backend import MemoryBackend
from lavibridge.training.cache.features import Features
from lavibridge.training.cache.keys import feature_maker_key

REVISED = "a cat, on a plain background"


@pytest.fixture
def chat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    """A server, an empty cache, and short waits."""
    monkeypatch.setenv("LAVIBRIDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PROXY_KEY", KEY)
    monkeypatch.setattr(chat_completions, "FIRST_WAIT", 0.01)
    with chat_server() as chat:
        yield chat


def settings(chat: ChatServer, **options: Any) -> ProxySettings:
    return ProxySettings(**({"endpoint": chat.endpoint, "model": "org/writer", "retries": 1} | options))


def test_a_prompt_is_revised_once_and_kept_on_disk(chat: ChatServer) -> None:
    chosen = settings(chat, instruction="Expand.", sampling={"temperature": 0}, key_variable="PROXY_KEY")
    first = Proxy(chosen)
    assert first.revise(["a cat", "", "a cat", " "]) == [REVISED, "", REVISED, " "]
    assert chat.requests == [
        {
            "temperature": 0,
            "model": "org/writer",
            "messages": [
                {"role": "system", "content": "Expand."},
                {"role": "user", "content": "a cat"},
            ],
        }
    ]
    assert chat.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert Proxy(chosen).revise(["a cat"]) == [REVISED]
    assert len(chat.requests) == 1


@pytest.mark.parametrize(
    "change",
    [{"model": "org/other"}, {"instruction": "Shorten."}, {"sampling": {"seed": 1}}],
    ids=lambda change: next(iter(change)),
)
def test_what_a_revision_depends_on_has_a_cache_of_its_own(chat: ChatServer, change: dict[str, Any]) -> None:
    Proxy(settings(chat)).revise(["a cat"])
    Proxy(settings(chat, **change)).revise(["a cat"])
    assert len(chat.requests) == 2
    Proxy(settings(chat, timeout=3, retries=0, concurrency=1, key_variable="PROXY_KEY")).revise(["a cat"])
    assert len(chat.requests) == 2


def test_without_a_network_the_cache_answers_or_an_error_says_what_to_do(chat: ChatServer) -> None:
    with pytest.raises(RemoteModelError, match=r"cannot be reached .*2 attempts.*copy that folder"):
        Proxy(settings(chat, endpoint="http://127.0.0.1:9/v1")).revise(["a cat"])
    Proxy(settings(chat)).revise(["a cat"])
    chat.answer = lambda _: failure(503, "down")
    assert Proxy(settings(chat)).revise(["a cat"]) == [REVISED]


def test_retry_after_is_obeyed(chat: ChatServer) -> None:
    for wait in ("0.4", format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)):
        answers = iter([failure(429, "slow down", Retry_After=wait), revise("a cat")])
        chat.answer = lambda _, answers=answers: next(answers)  # type: ignore[misc]
        start = time.monotonic()
        assert Proxy(settings(chat, model=f"org/{wait}")).revise(["a cat"]) == [REVISED]
        assert time.monotonic() - start >= 0.4
    chat.answer = lambda _: failure(429, "tomorrow", Retry_After="86400")
    with pytest.raises(RemoteModelError, match="429: tomorrow, and asks to wait 86,400 seconds"):
        Proxy(settings(chat)).revise(["a cat"])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (failure(500, "broken"), r"it answered 500: broken \(3 attempts\)"),
        (Answer(body=b"<html>"), r"not a chat completion in JSON \(3 attempts\)"),
        (Answer(body=b'{"choices": []}'), "not a chat completion"),
        (Answer(after=0.6), "no answer within 0.2 seconds"),
    ],
    ids=["500", "HTML", "no choices", "timeout"],
)
def test_faults_that_pass_are_repeated_and_bounded(chat: ChatServer, answer: Answer, message: str) -> None:
    chat.answer = lambda _: answer
    with pytest.raises(RemoteModelError, match=message):
        Proxy(settings(chat, retries=2, timeout=0.2)).revise(["a cat"])
    assert len(chat.requests) == 3
    answers = iter([answer, revise("a cat")])
    chat.answer = lambda _: next(answers)
    assert Proxy(settings(chat, timeout=0.2)).revise(["a cat"]) == [REVISED]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (failure(401, f"Incorrect API key provided: {KEY}"), r"401: Incorrect .*: \[key\]; check the key in"),
        (failure(404, "no such model"), "404: no such model; check language.proxy.endpoint"),
        (failure(400, "temperature must be 1"), "check language.proxy.sampling"),
        (Answer(307, headers={"Location": "http://127.0.0.1:9/"}), "set language.proxy.endpoint to the URL"),
    ],
    ids=["401", "404", "400", "redirect"],
)
def test_other_errors_are_final_and_say_what_to_do(chat: ChatServer, answer: Answer, message: str) -> None:
    chat.answer = lambda _: answer
    with pytest.raises(RemoteModelError, match=message) as caught:
        Proxy(settings(chat, key_variable="PROXY_KEY")).revise(["a cat"])
    assert len(chat.requests) == 1
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (completion(None, refusal="I cannot do that"), "it refused: I cannot do that"),
        (completion(None, finish_reason="content_filter"), "it refused: content filter"),
        (completion("  \n"), "its answer is empty"),
        (completion("a cat on a", finish_reason="length"), "its answer exceeds the token limit"),
    ],
    ids=["refusal", "filter", "empty", "length"],
)
def test_a_refusal_stops_or_leaves_the_prompt_as_it_is(chat: ChatServer, answer: Answer, reason: str) -> None:
    chat.answer = lambda prompt: answer if prompt == "a cat" else revise(prompt)
    with pytest.raises(PromptRefusedError, match=f"'a cat': {reason}.*on_refusal=prompt"):
        Proxy(settings(chat, concurrency=1)).revise(["a dog", "a cat"])
    lenient = settings(chat, on_refusal="prompt")
    assert Proxy(lenient).revise(["a dog", "a cat"]) == ["a dog, on a plain background", "a cat"]
    before = len(chat.requests)
    assert chat.prompts.count("a dog") == 1  # the first call kept it
    assert Proxy(lenient).revise(["a cat"]) == ["a cat"]
    assert len(chat.requests) == before
    chat.answer = revise
    assert Proxy(settings(chat)).revise(["a cat"]) == [REVISED]  # a stricter setting asks again


def test_many_prompts_are_requested_side_by_side_and_a_stopped_call_continues(chat: ChatServer) -> None:
    prompts = [f"{number} cats" for number in range(24)]

    def slow(prompt: str) -> Answer:
        if prompt == "17 cats":
            return failure(400, "no")
        return Answer(body=revise(prompt).body, after=0.02)

    chat.answer = slow
    chosen = settings(chat, concurrency=4)
    with pytest.raises(RemoteModelError, match="400: no"):
        Proxy(chosen).revise(prompts)
    assert chat.most_at_once == 4
    answered = set(chat.prompts) - {"17 cats"}
    assert len(answered) < 24
    chat.answer = revise
    assert Proxy(chosen).revise(prompts) == [f"{prompt}, on a plain background" for prompt in prompts]
    assert all(chat.prompts.count(prompt) == 1 for prompt in answered)


def test_processes_agree_and_a_damaged_line_costs_one_request(chat: ChatServer) -> None:
    one, other = Proxy(settings(chat)), Proxy(settings(chat))
    one.revise(["a cat"])
    chat.answer = lambda prompt: completion("something else")
    assert other.revise(["a cat"]) == [REVISED]  # read from the file, not requested
    (kept,) = Path(os.environ["LAVIBRIDGE_CACHE"]).glob("proxy/org-writer-*/prompts.jsonl")
    kept.write_bytes(kept.read_bytes() + b'{"prompt": "a dog", "te')
    third = Proxy(settings(chat))
    assert third.revise(["a dog", "a cat"]) == ["something else", REVISED]
    assert Proxy(settings(chat)).revise(["a dog"]) == ["something else"]
    assert len(chat.requests) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key_variable": KEY}, "name of an environment variable"),
        ({"key_variable": "hf_aBcDeFgH"}, "name of an environment variable"),
        ({"endpoint": f"https://me:{KEY[:7]}@host/v1"}, "user name, a password or a query"),
        ({"endpoint": f"https://host/v1?key={KEY[:7]}"}, "user name, a password or a query"),
        ({"sampling": {"api_key": KEY}}, "must not contain a secret"),
        ({"endpoint": "host/v1"}, "must be the URL of an API"),
        ({"sampling": {"model": "other"}}, "model is set by the proxy itself"),
        ({"api_key": KEY}, "unknown key"),
    ],
)
def test_settings_refuse_a_secret_without_repeating_it(options: dict[str, Any], message: str) -> None:
    mapping = {"endpoint": "https://host/v1", "model": "m", **options}
    with pytest.raises(RecipeError, match=message) as caught:
        validate_config(ProxySettings, mapping, "language.proxy")
    for secret in (KEY, KEY[:7], "hf_aBcDeFgH"):
        assert secret not in str(caught.value)


def test_a_missing_key_is_named_only_when_it_is_needed(
    chat: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings(chat, key_variable="PROXY_KEY")
    Proxy(chosen).revise(["a cat"])
    monkeypatch.delenv("PROXY_KEY")
    assert Proxy(chosen).revise(["a cat"]) == [REVISED]
    with pytest.raises(RemoteModelError, match="environment variable PROXY_KEY is not set: export it"):
        Proxy(chosen).revise(["a dog"])
    monkeypatch.setenv("PROXY_KEY", "two words")
    with pytest.raises(RemoteModelError, match="PROXY_KEY is not a key") as caught:
        Proxy(chosen).revise(["a dog"])
    assert "two words" not in str(caught.value)


def toy_bridge(chat: ChatServer, **options: Any) -> Bridge:
    proxy = settings(chat, key_variable="PROXY_KEY", **options).model_dump()
    return Bridge.compose(
        {"kind": "t5", "source": "random", "proxy": proxy},
        {"kind": "pixart", "source": "random"},
        language_lora=None,
        vision_lora=None,
    ).eval()


@torch.no_grad()
def test_a_bridge_reads_the_revised_prompt_and_no_revised_negative_prompt(chat: ChatServer) -> None:
    bridge = toy_bridge(chat)
    plain = model_of_choice("language", {"kind": "t5", "source": "random"})
    assert torch.equal(bridge.features(["a cat"]).hidden, plain.encode([REVISED]).hidden)
    assert torch.equal(bridge.features([""]).hidden, plain.encode([""]).hidden)
    pipe = BridgePipeline(bridge)
    drawn = [
        pipe("a cat", "a dog", num_inference_steps=2, guidance_scale=2.0, seed=0, output_type="pt").images
    ]
    bridge.language.use_proxy(None)
    drawn.append(
        pipe(REVISED, "a dog", num_inference_steps=2, guidance_scale=2.0, seed=0, output_type="pt").images
    )
    assert torch.allclose(*drawn, atol=1e-5)
    assert set(chat.prompts) == {"a cat"}


@torch.no_grad()
def test_cached_features_are_those_of_the_revised_captions(chat: ChatServer) -> None:
    language = toy_bridge(chat).language
    chat.answer = lambda prompt: revise(prompt.replace("kitten", "cat"))
    features = Features(language, LAST_LAYER, MemoryBackend(1.0), b"")
    assert features.read_ahead(["a cat", "a kitten", "a dog"]) == 3
    plain = model_of_choice("language", {"kind": "t5", "source": "random"})
    found = features.together(["a kitten", "a cat"], torch.device("cpu")).hidden
    for row in found:
        torch.testing.assert_close(row[None], plain.encode([REVISED]).hidden)
    assert sorted(chat.prompts) == ["a cat", "a dog", "a kitten"]


def test_identity_and_keys_hold_the_settings_but_not_the_key(
    chat: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keys(bridge: Bridge) -> tuple[str, bytes]:
        maker = feature_maker_key(bridge.language, LAST_LAYER, torch.float32)
        return bridge_identity(bridge)["language"], maker

    own = keys(toy_bridge(chat))
    for change in ({"model": "other"}, {"instruction": "x"}, {"sampling": {"seed": 1}}):
        assert not set(own) & set(keys(toy_bridge(chat, **change)))
    monkeypatch.setenv("PROXY_KEY", "sk-another")
    assert keys(toy_bridge(chat, timeout=1, concurrency=2)) == own
    plain = toy_bridge(chat)
    plain.language.use_proxy(None)
    assert not set(own) & set(keys(plain))


def test_no_file_holds_the_key(chat: ChatServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    chat.answer = lambda prompt: completion(f"{prompt} by {KEY}")  # a server may repeat what it was sent
    bridge = toy_bridge(chat)
    assert bridge.language.revise(["a cat"]) == ["a cat by [key]"]
    bridge.save_pretrained(tmp_path / "bridge")
    loaded = Bridge.from_pretrained(tmp_path / "bridge", "cpu")
    assert loaded.language.config.proxy == bridge.language.config.proxy
    recipe = load_recipe(
        "mini-llama_mini-sd_lavi",
        [f"language.proxy={json.dumps(settings(chat, key_variable='PROXY_KEY').model_dump())}"],
    )
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(tmp_path / "recipe.yaml").language == recipe.language
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert KEY not in "".join(capfd.readouterr())


def test_word_weights_are_refused(chat: ChatServer) -> None:
    pipe = BridgePipeline(toy_bridge(chat))
    with pytest.raises(RecipeError, match=r"no effect with a proxy .*remove the weights"):
        pipe("a (red:1.3) cat", num_inference_steps=1, prompt_weighting=True)
    assert not chat.requests


def test_a_pair_revises_for_both_models(chat: ChatServer) -> None:
    pair = model_of_choice("language", {"kind": "pair", "source": "random", "of": "t5"})
    before = pair.identity()
    pair.use_proxy(settings(chat))
    assert pair.revise(["a cat"]) == [REVISED]
    assert pair.identity() != before
