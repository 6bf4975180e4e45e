"""The connectors: the published adapter's weights and formula, and the straight wire."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lavibridge.connectors.identity import Identity
from lavibridge.connectors.lavi import LaviAdapter
from lavibridge.core.contracts import TextFeatures, TextSpec, VisionSpec
from lavibridge.core.errors import ModelError


def features(width: int, tokens: int = 5, layers: int = 1) -> TextFeatures:
    mask = torch.ones(2, tokens, dtype=torch.bool)
    mask[1, 3:] = False
    return TextFeatures(hidden=torch.randn(2, layers, tokens, width), mask=mask, pooled=torch.randn(2, width))


def adapter(text: int, vision: int, **options: object) -> LaviAdapter:
    config = LaviAdapter.Config.model_validate(options)
    return LaviAdapter(config, TextSpec(width=text, layers=3), VisionSpec(context=vision))


@pytest.mark.parametrize(("text", "vision", "count"), [(1024, 768, 21_254_528), (512, 768, 8_663_680)])
def test_published_sizes(text: int, vision: int, count: int) -> None:
    with torch.device("meta"):
        assert sum(value.numel() for value in adapter(text, vision).parameters()) == count


def test_published_names_and_shapes() -> None:
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in adapter(1024, 768).state_dict().items()}
    assert shapes == {
        "ff1.net.0.proj.weight": (8192, 1024),
        "ff1.net.0.proj.bias": (8192,),
        "ff1.net.2.weight": (896, 4096),
        "ff1.net.2.bias": (896,),
        "ff2.net.0.proj.weight": (7168, 896),
        "ff2.net.0.proj.bias": (7168,),
        "ff2.net.2.weight": (768, 3584),
        "ff2.net.2.bias": (768,),
        "norm1.weight": (1024,),
        "norm1.bias": (1024,),
        "norm2.weight": (896,),
        "norm2.bias": (896,),
    }


def test_formula() -> None:
    module, given = adapter(6, 10).eval(), features(6)
    weights = module.state_dict()

    def feed_forward(x: Tensor, name: str) -> Tensor:
        value, gate = functional.linear(
            x, weights[f"{name}.net.0.proj.weight"], weights[f"{name}.net.0.proj.bias"]
        ).chunk(2, -1)
        gated = value * 0.5 * gate * (1 + torch.erf(gate / 2**0.5))
        return functional.linear(gated, weights[f"{name}.net.2.weight"], weights[f"{name}.net.2.bias"])

    inner = feed_forward(functional.layer_norm(given.hidden[:, -1], (6,)), "ff1")
    expected = feed_forward(functional.layer_norm(inner, (8,)), "ff2")
    made = module(given)
    real = made.mask
    torch.testing.assert_close(made.tokens[real], expected[real])
    assert not made.tokens[~real].any()
    assert made.mask is given.mask


def test_tokens_are_apart_and_dropout_is_for_training() -> None:
    module, given = adapter(6, 10), features(6)
    assert not torch.equal(module(given).tokens, module(given).tokens)
    module.eval()
    whole = module(given).tokens
    part = TextFeatures(hidden=given.hidden[:, :, 2:3], mask=given.mask[:, 2:3])
    torch.testing.assert_close(module(part).tokens, whole[:, 2:3])


def test_options() -> None:
    assert adapter(6, 10, width=4).norm2.weight.shape == (4,)
    assert adapter(6, 10, read={"layer": 1}).reading.layers == (1,)
    module = adapter(6, 10, dropout=0.0)
    given = features(6)
    assert torch.equal(module(given).tokens, module(given).tokens)


def test_identity_passes_everything_and_trains_nothing() -> None:
    wire = Identity(Identity.Config(), TextSpec(width=6, layers=3), VisionSpec(context=6))
    given = features(6, layers=2)
    made = wire(given)
    assert torch.equal(made.tokens, given.hidden[:, 1])
    assert made.mask is given.mask
    assert made.pooled is None
    pooled = Identity(
        Identity.Config(), TextSpec(width=6, layers=3, pooled=6), VisionSpec(context=6, pooled=6)
    )
    assert pooled(given).pooled is given.pooled
    assert not list(wire.parameters())
    with pytest.raises(ModelError, match="6 wide"):
        Identity(Identity.Config(), TextSpec(width=6, layers=3), VisionSpec(context=8))


def test_whitening_makes_features_on_a_line_tell_words_apart() -> None:
    """Features as a causal model's: one large common direction, and what words change a thousandth of it."""
    generator = torch.Generator().manual_seed(0)
    words = torch.randn(8, 48, generator=generator)
    line = torch.randn(48, generator=generator)
    tokens = 5 * line + 0.02 * words[torch.randint(8, (400,), generator=generator)]
    tokens = tokens + 0.002 * torch.randn(400, 48, generator=generator)
    text, vision = TextSpec(width=48, layers=1), VisionSpec(context=32)
    spread = {}
    for whiten in (False, True):
        torch.manual_seed(1)
        adapter = LaviAdapter(LaviAdapter.Config(whiten=whiten, dropout=0.0), text, vision)
        keys = set(adapter.state_dict())
        assert adapter.needs_calibration == whiten
        if whiten:
            adapter.calibrate(tokens[:, None])
        assert set(adapter.state_dict()) == keys
        shown = (5 * line + 0.02 * words)[None, None]
        mask = torch.ones(1, 8, dtype=torch.bool)
        out = adapter(TextFeatures(hidden=shown, mask=mask)).tokens[0].detach()
        spread[whiten] = float(out.std(0).norm() / out.norm(dim=1).mean())
    assert spread[True] > 5 * spread[False]
