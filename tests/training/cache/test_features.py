"""Kept features teach what fresh ones do: the losses are equal bit for bit."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lavibridge.bridge import Bridge
from lavibridge.core.contracts import Batch, TextFeatures
from lavibridge.training.cache.backend import Memory, OnDisk
from lavibridge.training.cache.features import Features, from_entry, refusal, to_entry
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
        store.put(prompt.encode().ljust(16)[:16], to_entry(part))
    store.flush()
    again = Store(tmp_path, torch.float32)
    entries = [again.get(prompt.encode().ljust(16)[:16]) for prompt in PROMPTS]
    kept = TextFeatures.pad([from_entry(entry) for entry in entries if entry is not None])
    assert torch.equal(kept.mask, fresh.mask)
    assert kept.hidden.shape == fresh.hidden.shape
    assert torch.equal(losses(bridge, kept), losses(bridge, None))


@pytest.mark.parametrize("language", ["llama", "t5", "pair"])
def test_one_by_one_the_features_are_the_same_but_for_rounding(
    composed: Callable[..., Bridge], tmp_path: Path, language: str
) -> None:
    bridge = composed(language)
    reading = bridge.connector.reading
    memory = Features(bridge.language, reading, Memory(1.0), b"")
    disk = Features(bridge.language, reading, OnDisk(Store(tmp_path, torch.float32)), b"")
    first, again, kept = (each.of(PROMPTS, CPU) for each in (memory, memory, disk))
    expected = losses(bridge, None)
    for features in (first, again, kept):
        assert torch.equal(losses(bridge, features), losses(bridge, first))
        torch.testing.assert_close(losses(bridge, features), expected, rtol=1e-5, atol=1e-6)
    half = Features(bridge.language, reading, OnDisk(Store(tmp_path / "half", torch.bfloat16)), b"")
    torch.testing.assert_close(half.of(PROMPTS, CPU).hidden, first.hidden, rtol=2**-8, atol=1e-6)


def test_captions_that_are_new_are_read_in_one_call_and_never_again(
    composed: Callable[..., Bridge], monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = composed("t5")
    kept = Features(bridge.language, bridge.connector.reading, Memory(1.0), b"")
    calls, compute = list[int](), kept.compute
    monkeypatch.setattr(kept, "compute", lambda new: (calls.append(len(new)), compute(new))[1])
    for captions in (PROMPTS, PROMPTS, (*PROMPTS, "new", "new")):
        made, expected = kept.together(captions, CPU), bridge.features(captions)
        assert torch.equal(made.mask, expected.mask)
        real = made.mask[:, None, :, None]
        torch.testing.assert_close(made.hidden * real, expected.hidden * real)
    assert calls == [len(PROMPTS), 1]


def test_what_changes_in_training_is_not_kept(composed: Callable[..., Bridge]) -> None:
    assert refusal(composed()) is None
    small = ({"kind": "llama", "source": "random"}, {"kind": "sd", "source": "random"})
    trained = Bridge.compose(*small, "lavi", language_lora={"rank": 2}, vision_lora=None)
    assert "lora.language" in str(refusal(trained))
    asked = Bridge.compose(
        *small, {"kind": "query", "queries": 3, "blocks": 1}, language_lora=None, vision_lora=None
    )
    assert "vectors that are trained" in str(refusal(asked))


def test_padding_on_the_left_is_left_out_too() -> None:
    hidden = torch.arange(6.0).reshape(1, 1, 3, 2)
    (part,) = TextFeatures(hidden=hidden, mask=torch.tensor([[False, True, True]])).split()
    assert torch.equal(to_entry(part)["hidden"], hidden[0, :, 1:])
