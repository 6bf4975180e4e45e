"""Every language family with every vision family through every connector: real classes at toy size, offline.

New files are found by themselves. A triple either works as a whole or is refused when it is put together.
`make test` runs a covering array of strength two: every two components that work together meet in a triple
that works, and every connector that refuses a model refuses it once. `make slow` runs all the other triples.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from lavibridge import Bridge, BridgePipeline
from lavibridge.core import registry
from lavibridge.core.contracts import Batch, TextSpec, VisionSpec
from lavibridge.core.errors import ModelError
from lavibridge.language.base import LanguageModel
from lavibridge.vision.base import VisionModel

LANGUAGES, VISIONS, CONNECTORS = (registry.kinds(room) for room in ("language", "vision", "connectors"))
PROMPTS = ("a red cat", "a boat beside a house")
OPTIONS = {
    "resampler": {"latents": 3, "blocks": 1, "heads": 4},
    "ella": {"latents": 3, "blocks": 1, "heads": 4, "time_channels": 8},
    "ella_zero": {"latents": 3, "blocks": 1, "heads": 4, "time_channels": 8},
    "query": {"queries": 3, "blocks": 1},
    "dual_condition": {"queries": 3, "blocks": 1},
    "stacked_query": {"queries": 3, "blocks": 1, "width": 16, "heads": 2},
    "refiner": {"blocks": 1},
    "rouwei": {"latents": 3, "positions": 64, "wide_blocks": 1, "narrow_blocks": 1, "heads": 4},
    "pivot": {"slots": 3, "width": 8, "latents": 3, "language_heads": 4, "vision_heads": 4},
}
"""Small where the published sizes are large."""
ONCE = ("translator",)
"""Connectors that read any language model in the same way as `linear`: one stands for all."""
NO_QUERIES = ("clip", "siglip")
"""Text towers whose own forward reads nothing but tokens."""
Triple = tuple[str, str, str]

pytestmark = pytest.mark.usefixtures("one_thread")


@cache
def spec(room: str, kind: str) -> TextSpec | VisionSpec:
    family = registry.load_kind(room, kind)
    made: LanguageModel | VisionModel = family(family.Config(source="random"))
    return made.spec


def refusal(language: str, vision: str, connector: str) -> str | None:
    """What a triple that cannot be is told; None for all that have to work."""
    text, picture = spec("language", language), spec("vision", vision)
    assert isinstance(text, TextSpec)
    assert isinstance(picture, VisionSpec)
    if text.passthrough not in (None, picture.context):
        return "keep an encoder of that width"
    if connector == "identity" and text.width != picture.context:
        return "joins equal widths"
    if connector in ("llmdiff", "semantic_routing") and not picture.blocks:
        return "has none that stands alone"
    if connector in ("query", "dual_condition", "stacked_query") and language in NO_QUERIES:
        return "takes tokens only"
    return None


def compose(language: str, vision: str, connector: str) -> Bridge:
    small = {"rank": 2}
    return Bridge.compose(
        {"kind": language, "source": "random"},
        {"kind": vision, "source": "random"},
        {"kind": connector, **OPTIONS.get(connector, {})},
        small,
        small,
    )


def shaken(bridge: Bridge) -> Bridge:
    """As if trained: nothing stands at zero, where gradients end."""
    generator = torch.Generator().manual_seed(1)
    for values in bridge.trained_parameters().values():
        for value in values.values():
            value.data += 0.1 * torch.randn(value.shape, generator=generator)
    return bridge


def step(bridge: Bridge) -> None:
    """Every trained weight gets a gradient, nothing else does, and a step lowers the loss."""
    shape = bridge.vision.latent_shape(bridge.vision.default_size, bridge.vision.default_size)
    generator = torch.Generator().manual_seed(2)
    latents, noise = (torch.randn(2, *shape, generator=generator) for _ in range(2))
    batch = Batch(prompts=PROMPTS, names=("a", "b"), latents=latents)
    t = torch.tensor([200, 800])
    bridge.train()
    loss = bridge(batch, t, noise).mean()
    loss.backward()
    trained = {value for part in bridge.trained_parameters().values() for value in part.values()}
    names = {id(value): name for name, value in bridge.named_parameters()}
    without = [names[id(value)] for value in trained if value.grad is None or not value.grad.any()]
    assert without == []
    assert {value for value in bridge.parameters() if value.grad is not None} == trained
    bridge.eval()
    bridge.zero_grad(set_to_none=True)
    before = bridge(batch, t, noise).mean()
    before.backward()
    heard = [value for value in trained if value.grad is not None]
    size = torch.stack([value.grad.norm() for value in heard if value.grad is not None]).norm()
    for length in (1e-3, 1e-4):  # shaken weights curve the loss: what a gradient promises holds near by
        with torch.no_grad():
            for value in heard:
                value -= length * value.grad / size  # type: ignore[operator]
            if bridge(batch, t, noise).mean() < before:
                return
            for value in heard:
                value += length * value.grad / size  # type: ignore[operator]
    raise AssertionError(f"no step down the gradient lowers the loss of {float(before)}")


def works(bridge: Bridge, folder: Path) -> None:
    """Trains, draws, is saved and loaded as the same."""
    step(shaken(bridge))
    drawn = BridgePipeline(bridge)(list(PROMPTS), num_inference_steps=2, guidance_scale=3.0, seed=0).images
    alone = BridgePipeline(bridge)(PROMPTS[0], num_inference_steps=2, guidance_scale=3.0, seed=0).images
    assert np.abs(np.asarray(drawn[0], int) - np.asarray(alone[0], int)).max() <= 1
    bridge.save_pretrained(folder)
    again = BridgePipeline(Bridge.from_pretrained(folder, device="cpu"))(
        list(PROMPTS), num_inference_steps=2, guidance_scale=3.0, seed=0
    ).images
    assert all(np.array_equal(one, other) for one, other in zip(drawn, again, strict=True))


TRIPLES = [
    triple
    for triple in product(LANGUAGES, VISIONS, CONNECTORS)
    if triple[2] not in ONCE or triple[0] == "llama"
]


def covering_array(triples: Sequence[Triple], sides: Sequence[tuple[int, int]]) -> Iterator[Triple]:
    """Choose triples, the one with the most new pairs first, until each pair of their components has met."""
    pairs = {triple: {(a, triple[a], b, triple[b]) for a, b in sides} for triple in triples}
    missing = set().union(*pairs.values())
    while missing:
        best = max(triples, key=lambda triple: len(pairs[triple] & missing))
        missing -= pairs[best]
        yield best


WORKING = [triple for triple in TRIPLES if refusal(*triple) is None]
REFUSED = [triple for triple in TRIPLES if refusal(*triple) is not None]
QUICK = {*covering_array(WORKING, ((0, 1), (0, 2), (1, 2))), *covering_array(REFUSED, ((0, 2), (1, 2)))}


@pytest.mark.parametrize(
    ("language", "vision", "connector"),
    [pytest.param(*triple, marks=[] if triple in QUICK else pytest.mark.slow) for triple in TRIPLES],
)
def test_a_triple_works_or_is_refused(language: str, vision: str, connector: str, tmp_path: Path) -> None:
    said = refusal(language, vision, connector)
    if said is not None:
        with pytest.raises(ModelError, match=said):
            compose(language, vision, connector).features(PROMPTS)
    else:
        works(compose(language, vision, connector), tmp_path)
