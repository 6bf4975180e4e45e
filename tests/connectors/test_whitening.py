"""Whitening: what it does to features, that folding it changes no more than that, and who can have it."""

import pytest
import torch
from torch import nn

from lavibridge.connectors.parts.whitening import compute_whitening, fold_whitening
from lavibridge.core import registry
from lavibridge.core.contracts import TextFeatures, TextSpec, VisionSpec
from lavibridge.core.errors import ModelError

TEXT, VISION = TextSpec(width=24, layers=3), VisionSpec(context=16)


def on_a_line(count: int, scale: float = 1.0) -> torch.Tensor:
    """Features as a causal model's: a large common direction, correlated small differences."""
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(24, 24, generator=generator)
    line = 50 * torch.randn(24, generator=generator)
    return scale * (line + torch.randn(count, 24, generator=generator) @ mixed)


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e3])
def test_whitened_features_are_uncorrelated_and_equally_large(scale: float) -> None:
    x = on_a_line(4000, scale)
    found = compute_whitening(x)
    white = (x - found.mean) / found.spread @ found.matrix
    assert white.mean(0).abs().max() < 1e-3
    spread, turned = white.std(0), torch.corrcoef(white.T) - torch.eye(24)
    assert spread.min() > 0.8  # the floors shrink the smallest
    assert spread.max() < 1.05
    assert turned.abs().max() < 0.15
    assert torch.corrcoef(x.T).sub(torch.eye(24)).abs().max() > 0.5


def test_folding_is_whitening_before_the_layer() -> None:
    x = on_a_line(400)
    found = compute_whitening(x)
    layer = nn.Linear(24, 8)
    wanted = layer((x - found.mean) / found.spread @ found.matrix)
    fold_whitening(layer, found)
    torch.testing.assert_close(layer(x), wanted, atol=1e-4, rtol=1e-4)


KINDS = {
    "linear": {},
    "stacked": {},
    "mlp": {},
    "lavi": {"dropout": 0.0},
    "resampler": {"latents": 4, "blocks": 1},
    "ella": {"latents": 4, "blocks": 1, "time_channels": 8},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_connector_tells_tokens_apart_that_lie_on_a_line(kind: str) -> None:
    """Of two captions of one token each, what differs in the conditioning is a larger share of it."""
    tokens = on_a_line(400)
    differing = {}
    for whiten in (False, True):
        torch.manual_seed(0)
        maker = registry.load_kind("connectors", kind)
        connector = maker(maker.Config(**KINDS[kind], whiten=whiten), TEXT, VISION)
        assert connector.needs_calibration == whiten
        layers = len(connector.reading.layers)
        if whiten:
            connector.calibrate(tokens[:, None].expand(-1, layers, -1))
        hidden = tokens[:64, None, None].expand(-1, layers, -1, -1)
        mask, t = torch.ones(64, 1, dtype=torch.bool), torch.full((64,), 500.0)
        out = connector(TextFeatures(hidden=hidden, mask=mask), t).tokens.detach().flatten(1)
        differing[whiten] = float(out.std(0).norm() / out.square().mean(0).sum().sqrt())
    assert differing[True] > 1.2 * differing[False]


def test_a_refiner_hands_it_to_the_connector_that_follows() -> None:
    maker = registry.load_kind("connectors", "refiner")
    refiner = maker(maker.Config(then={"kind": "linear", "whiten": True}), TEXT, VISION)
    assert refiner.needs_calibration
    before = refiner.then.proj.weight.clone()
    refiner.calibrate(on_a_line(400)[:, None].expand(-1, 3, -1))
    assert not torch.equal(refiner.then.proj.weight, before)


@pytest.mark.parametrize("kind", ["query", "dual_condition", "stacked_query", "refiner"])
def test_a_connector_that_cannot_says_so(kind: str) -> None:
    maker = registry.load_kind("connectors", kind)
    connector = maker(maker.Config(whiten=True), TEXT, VISION)
    with pytest.raises(ModelError, match="whiten"):
        _ = connector.needs_calibration
