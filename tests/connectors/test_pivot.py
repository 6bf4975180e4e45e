"""The connector `pivot`: two halves that know of each other only the size of the space between them."""

import pytest
import torch
from torch.nn import functional

from lavibridge.connectors.pivot import LanguageHalf, Pivot
from lavibridge.core.contracts import TextFeatures, TextSpec, VisionSpec
from lavibridge.core.errors import ModelError

TEXT, VISION = TextSpec(width=16, layers=4, read="norm_mean"), VisionSpec(context=24)
SMALL = {"slots": 5, "width": 8, "latents": 3, "language_heads": 2, "vision_heads": 4}


def pivot(text: TextSpec = TEXT, vision: VisionSpec = VISION, **options: object) -> Pivot:
    torch.manual_seed(0)
    return Pivot(Pivot.Config.model_validate({**SMALL, **options}), text, vision).eval()


def features(text: TextSpec = TEXT, layers: int = 3) -> TextFeatures:
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[1, 4:] = False
    return TextFeatures(hidden=torch.randn(2, layers, 6, text.width), mask=mask)


def test_a_language_half_and_a_vision_half_of_two_pivots_make_a_third() -> None:
    first = pivot()
    second = pivot(TextSpec(width=20, layers=2), VisionSpec(context=32, pooled=6), latents=7)
    both = pivot(TEXT, VisionSpec(context=32, pooled=6), latents=7)
    both.load_state_dict(
        {name: value for name, value in first.state_dict().items() if name.startswith("language_half.")}
        | {name: value for name, value in second.state_dict().items() if name.startswith("vision_half.")}
    )
    given = features()
    slots = first.language_half.slots(given)
    made = both(given)
    assert torch.equal(made.tokens, second.vision_half(slots))
    assert made.tokens.shape == (2, 7, 32)
    assert bool(made.mask.all())
    assert made.pooled is not None
    assert made.pooled.shape == (2, 6)


@pytest.mark.parametrize("read", [None, "learned", {"layer": 2}])
def test_every_weight_belongs_to_one_half(read: object) -> None:
    names = set(pivot(read=read).state_dict())
    assert {name.partition(".")[0] for name in names} == {"language_half", "vision_half"}
    assert ("language_half.read.weights" in names) == (read == "learned")


def test_slots_have_one_scale_whatever_the_features_have() -> None:
    half = pivot().language_half
    assert isinstance(half, LanguageHalf)
    given = features()
    for scale in (1.0, 1000.0):
        slots = half(scale * given.hidden[:, 0], given.mask)
        assert slots.shape == (2, 5, 8)
        torch.testing.assert_close(slots.mean(-1), torch.zeros(2, 5), atol=1e-5, rtol=0)
        torch.testing.assert_close(slots.square().mean(-1), torch.ones(2, 5), atol=1e-2, rtol=0)


def test_the_formula_of_the_language_half() -> None:
    """One block, one prompt, written out."""
    half = pivot(read={"layer": 1}, language_heads=1).language_half
    x = torch.randn(1, 6, 16)
    weights = half.state_dict()

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(x: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(x, (8,))

    latents, block = weights["latents"][None], "perceiver_blocks.0"
    asking = norm(latents)
    both = torch.cat([asking, norm(linear(x, "proj_in"))], dim=1)
    w, b = weights[f"{block}.attn.in_proj_weight"], weights[f"{block}.attn.in_proj_bias"]
    q, k, v = (
        functional.linear(each, w[8 * i : 8 * i + 8], b[8 * i : 8 * i + 8])
        for i, each in enumerate((asking, both, both))
    )
    attended = (q @ k.transpose(1, 2) / 8**0.5).softmax(-1) @ v
    latents = latents + linear(attended, f"{block}.attn.out_proj")
    latents = latents + linear(
        functional.relu(linear(norm(latents), f"{block}.mlp.c_fc")).square(), f"{block}.mlp.c_proj"
    )
    mask = torch.ones(1, 6, dtype=torch.bool)
    torch.testing.assert_close(half(x, mask), norm(latents), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("option", ["language_heads", "vision_heads"])
def test_heads_divide_the_width_of_their_half(option: str) -> None:
    with pytest.raises(ModelError, match="is 5, which does not divide the width"):
        pivot(**{option: 5})
