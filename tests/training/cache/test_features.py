"""Kept features teach what fresh ones do: the losses are equal bit for bit."""

from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest
import torch

from lavibridge.bridge import Bridge
from lavibridge.core.contracts import Batch, TextFeatures
from lavibridge.recipes.training_section import CacheSection
from lavibridge.training.cache.backend import DiskBackend, MemoryBackend
from lavibridge.training.cache.caches import feature_cache_folder
from lavibridge.training.cache.feature_reader import feature_reader
from lavibridge.training.cache.features import (
    Features,
    features_from_entry,
    features_refusal,
    features_to_entry,
)
from lavibridge.training.cache.store import Store

PROMPTS = ("a red cat", "", "a boat beside a house", "x")
CPU = torch.device("cpu")
CASES = [
    ("llama", "lavi", False, None),
    ("llama", "lavi", False, "describe: {prompt} now"),
    ("llama", "ella", True, None),
    ("llama", "lavi", "connector", None),
    ("llama", "llmdiff", False, None),
    ("t5", "lavi", False, None),
    ("t5", "ella", False, None),
    ("bert", "lavi", False, None),
    ("clip", "lavi", False, None),
    ("clip", "lavi", True, None),
    ("pair", "lavi", False, None),
]


def losses(bridge: Bridge, features: TextFeatures | None) -> torch.Tensor:
    shape = bridge.vision.latent_shape(bridge.vision.default_size, bridge.vision.default_size)
    generator = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(len(PROMPTS), *shape, generator=generator) for _ in range(2))
    batch = Batch(prompts=PROMPTS, names=PROMPTS, latents=latents, features=features)
    with torch.no_grad():
        found: torch.Tensor = bridge(batch, torch.tensor([100, 300, 500, 900]), noise)
    return found


@pytest.mark.parametrize(("language", "connector", "see_padding", "template"), CASES)
def test_stripped_kept_and_padded_again_the_losses_are_equal(
    composed: Callable[..., Bridge],
    tmp_path: Path,
    language: str,
    connector: str,
    see_padding: bool | str,
    template: str | None,
) -> None:
    bridge = composed(language, connector, see_padding, template)
    fresh = bridge.features(PROMPTS)
    store = Store(tmp_path, torch.float32)
    for prompt, part in zip(PROMPTS, fresh.split(), strict=True):
        store.put(prompt.encode().ljust(16)[:16], features_to_entry(part))
    store.flush()
    again = Store(tmp_path, torch.float32)
    entries = [again.get(prompt.encode().ljust(16)[:16]) for prompt in PROMPTS]
    kept = TextFeatures.pad([features_from_entry(entry) for entry in entries if entry is not None])
    assert torch.equal(kept.mask, fresh.mask)
    assert kept.hidden.shape == fresh.hidden.shape
    assert torch.equal(losses(bridge, kept), losses(bridge, None))


@pytest.mark.parametrize("language", ["llama", "t5", "pair"])
def test_one_by_one_the_features_are_the_same_but_for_rounding(
    composed: Callable[..., Bridge], tmp_path: Path, language: str
) -> None:
    bridge = composed(language)
    reading = bridge.connector.reading
    memory = Features(bridge.language, reading, MemoryBackend(1.0), b"")
    disk = Features(bridge.language, reading, DiskBackend(Store(tmp_path, torch.float32)), b"")
    first, again, kept = (each.of(PROMPTS, CPU) for each in (memory, memory, disk))
    expected = losses(bridge, None)
    for features in (first, again, kept):
        assert torch.equal(losses(bridge, features), losses(bridge, first))
        torch.testing.assert_close(losses(bridge, features), expected, rtol=1e-5, atol=1e-6)
    half = Features(bridge.language, reading, DiskBackend(Store(tmp_path / "half", torch.bfloat16)), b"")
    torch.testing.assert_close(half.of(PROMPTS, CPU).hidden, first.hidden, rtol=2**-8, atol=1e-6)


def test_new_captions_are_read_together_and_never_again(
    composed: Callable[..., Bridge], monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = composed("t5")
    kept = Features(bridge.language, bridge.connector.reading, MemoryBackend(1.0), b"")
    calls = calls_of(bridge, monkeypatch)
    for captions in (PROMPTS, PROMPTS, (*PROMPTS, "new", "new")):
        made = kept.together(captions, CPU)
        assert_equal(made, bridge.language.encode(captions, bridge.connector.reading))
        calls.pop()  # the expected features
    assert [sorted(call) for call in calls] == [sorted(PROMPTS), ["new"]]


def calls_of(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The prompts of each call of `encode` from now on."""
    calls, encode = list[list[str]](), bridge.language.encode
    monkeypatch.setattr(
        bridge.language, "encode", lambda new, reading: (calls.append(list(new)), encode(new, reading))[1]
    )
    return calls


def assert_equal(found: TextFeatures, expected: TextFeatures) -> None:
    assert torch.equal(found.mask, expected.mask)
    real = found.mask[:, None, :, None]
    torch.testing.assert_close(found.hidden * real, expected.hidden * real, rtol=1e-5, atol=1e-5)


def test_a_set_is_read_ahead_once_and_found_by_training_in_the_same_folder(
    composed: Callable[..., Bridge], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge, cache = composed("t5"), CacheSection(folder=tmp_path)
    expected = bridge.features(PROMPTS)
    calls = calls_of(bridge, monkeypatch)
    read = feature_reader(bridge, 1.0, cache)
    read.read_ahead([*PROMPTS, *PROMPTS])
    assert sorted(chain(*calls)) == sorted(PROMPTS)
    assert_equal(read(PROMPTS), expected)
    store, maker = feature_cache_folder(bridge, cache)
    trained = Features(bridge.language, bridge.connector.reading, DiskBackend(store), maker)
    assert_equal(trained.of(PROMPTS, CPU), expected)
    feature_reader(bridge, 0.0, cache).read_ahead(PROMPTS)
    assert len(calls) == 1


def test_captions_that_do_not_fit_into_memory_are_read_when_they_are_used(
    composed: Callable[..., Bridge], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bridge = composed("t5")
    expected = bridge.features(PROMPTS)
    longest = max(each.hidden.nbytes for each in expected.split())
    calls = calls_of(bridge, monkeypatch)
    read = feature_reader(bridge, 1e-9 * (longest + 1))
    read.read_ahead(PROMPTS)
    assert "1 of 4 captions" in capsys.readouterr().err
    assert_equal(read(PROMPTS), expected)
    assert sorted(calls[-1]) == sorted(set(PROMPTS) - {"a boat beside a house"})


def test_features_under_lora_are_read_with_it_and_stay_out_of_the_folder(tmp_path: Path) -> None:
    small = ({"kind": "llama", "source": "random"}, {"kind": "sd", "source": "random"})
    bridge = Bridge.compose(*small, "lavi", language_lora={"rank": 2}, vision_lora=None).eval()
    for name, weight in bridge.language.named_parameters():
        if "lora_B" in name:
            weight.data.fill_(0.5)
    read = feature_reader(bridge, 1.0, CacheSection(folder=tmp_path))
    read.read_ahead(PROMPTS)
    assert_equal(read(PROMPTS), bridge.features(PROMPTS))
    read.close()
    assert not list(tmp_path.iterdir())


def test_what_changes_in_training_is_not_kept(composed: Callable[..., Bridge]) -> None:
    assert features_refusal(composed()) is None
    small = ({"kind": "llama", "source": "random"}, {"kind": "sd", "source": "random"})
    trained = Bridge.compose(*small, "lavi", language_lora={"rank": 2}, vision_lora=None)
    assert "lora.language" in str(features_refusal(trained))
    asked = Bridge.compose(
        *small, {"kind": "query", "queries": 3, "blocks": 1}, language_lora=None, vision_lora=None
    )
    assert "appends learned queries" in str(features_refusal(asked))


def test_padding_on_the_left_is_left_out_too() -> None:
    hidden = torch.arange(6.0).reshape(1, 1, 3, 2)
    (part,) = TextFeatures(hidden=hidden, mask=torch.tensor([[False, True, True]])).split()
    assert torch.equal(features_to_entry(part)["hidden"], hidden[0, :, 1:])
