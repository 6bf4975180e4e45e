"""Whether the hub answers is asked once, and nobody waits for files one by one without a network."""

import socket
from collections.abc import Iterator
from time import monotonic

import pytest
from huggingface_hub import constants

from lavibridge import load_recipe
from lavibridge.bridge.choices import model_of_choice
from lavibridge.core import hub
from lavibridge.core.errors import DataError, ModelError
from lavibridge.core.sources import read_model_json
from lavibridge.data.base import open_dataset
from lavibridge.data.hub import Hub
from lavibridge.data.pictures.rejected import RejectedPictures


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a port on which nobody listens, as the hub's."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{held.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield address


def test_a_hub_that_does_not_answer_is_asked_once(closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    ask = hub.why_unreachable
    monkeypatch.setattr(hub, "why_unreachable", lambda address: asked.append(address) or ask(address))
    begun = monotonic()
    for name in ("config.json", "tokenizer.json", "model_index.json"):
        with pytest.raises(ModelError, match=rf"{closed}\) cannot be reached \(.*refused.*give a folder"):
            read_model_json("owner/name", name)
    assert load_recipe("quickstart", ["language={kind: llama, source: owner/name}"])
    with pytest.raises(DataError, match=r"'owner/data' .* cannot be loaded"):
        open_dataset("hub", Hub.Config(path="owner/data"), RejectedPictures())
    assert constants.HF_HUB_OFFLINE is False
    assert asked == [closed]
    assert monotonic() - begun < 10  # the client's own six tries of one file take 23 s


def test_a_hub_that_is_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "PATIENCE", 0.2)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        begun = monotonic()
        assert hub.why_unreachable(f"http://127.0.0.1:{mute.getsockname()[1]}") is not None
        assert monotonic() - begun < 5
    assert hub.why_unreachable("no address") is not None


def test_a_set_variable_asks_nobody(closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "why_unreachable", None)
    assert hub.is_local_only("owner/name")


def test_nobody_is_asked_about_a_folder(closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "why_unreachable", None)
    assert model_of_choice("language", "mini-bert").encode(["a red circle"])
    assert model_of_choice("vision", "mini-ldm")
