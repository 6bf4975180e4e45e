"""Every language family with every vision family through every connector: real classes at toy size, offline.

New files are found by themselves. A triple either works as a whole or is refused when it is put together.
"""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from lavibridge import Bridge
from lavibridge.core import registry
from lavibridge.core.contracts import Batch
from lavibridge.core.errors import ModelError

LANGUAGES, VISIONS, CONNECTORS = (registry.kinds(room) for room in ("language", "vision", "connectors"))
PROMPTS = ("a red cat", "a boat beside a house")
OPTIONS = {
    "resampler": {"latents": 3, "blocks": 1, "heads": 4},
    "ella": {"latents": 3, "blocks": 1, "heads": 4, "time_channels": 8},
    "ella_zero": {"latents": 3, "blocks": 1, "heads": 4, "time_channels": 8},
    "query": {"queries": 3, "blocks": 1},
    "refiner": {"blocks": 1},
}
"""Small where the published sizes are large."""
REFUSED = {
    "identity": "joins equal widths",
    "query": "takes tokens only",
    "llmdiff": "text and picture attend to each other jointly",
    "pair": "keep an encoder of that width",
}
"""What a refusal says, by the kind that refuses."""


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Models this small are slower on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
    with torch.no_grad():
        for value in heard:
            value -= 1e-3 * value.grad / size  # type: ignore[operator]
        assert bridge(batch, t, noise).mean() < before


def works(bridge: Bridge, folder: Path) -> None:
    """Trains, draws, is saved and loaded as the same."""
    step(shaken(bridge))
    drawn = bridge.generate(list(PROMPTS), steps=2, guidance=3.0)
    alone = bridge.generate(PROMPTS[0], steps=2, guidance=3.0)
    assert np.abs(np.asarray(drawn[0], int) - np.asarray(alone[0], int)).max() <= 1
    bridge.save_pretrained(folder)
    again = Bridge.from_pretrained(folder, device="cpu").generate(list(PROMPTS), steps=2, guidance=3.0)
    assert all(np.array_equal(one, other) for one, other in zip(drawn, again, strict=True))


TRIPLES = list(product(LANGUAGES, VISIONS, CONNECTORS))


@pytest.mark.parametrize(("language", "vision", "connector"), TRIPLES)
def test_a_triple_works_or_is_refused(language: str, vision: str, connector: str, tmp_path: Path) -> None:
    refusals = [REFUSED[kind] for kind in (language, vision, connector) if kind in REFUSED]
    try:
        bridge = compose(language, vision, connector)
        bridge.features(PROMPTS)
    except ModelError as refusal:
        if not any(text in str(refusal) for text in refusals):
            raise
    else:
        works(bridge, tmp_path)
