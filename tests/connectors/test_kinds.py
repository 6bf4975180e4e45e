"""Every connector by its published size and by what its formula promises."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lavibridge.connectors.base import Connector
from lavibridge.connectors.llmdiff import LlmDiff
from lavibridge.connectors.parts.read_out import OneLayerReadOut, make_read_out
from lavibridge.core import registry
from lavibridge.core.contracts import BlockSpec, BlockTokens, TextFeatures, TextSpec, VisionSpec
from lavibridge.core.errors import ModelError, RecipeError

KINDS = registry.kinds("connectors")
TEXT = TextSpec(width=16, layers=4, read="norm_mean")
BLOCKS = {"a": BlockSpec(width=8, inner=8, heads=2), "b": BlockSpec(width=12, inner=12, heads=2)}
VISION = VisionSpec(context=16, blocks=BLOCKS)


SMALL = {"stacked_query": {"queries": 3, "width": 16, "heads": 2, "blocks": 1}}
"""Options for tests of what every kind promises, where the published sizes are slow."""


def build(kind: str, text: TextSpec = TEXT, vision: VisionSpec = VISION, **options: object) -> Connector:
    chosen = registry.load_kind("connectors", kind)
    torch.manual_seed(0)
    made: Connector = chosen(chosen.Config.model_validate(options), text, vision)
    return made


def shaken(module: Connector) -> Connector:
    with torch.no_grad():
        for value in module.parameters():
            value += 0.2 * torch.randn(value.shape, generator=torch.Generator().manual_seed(value.numel()))
    return module.eval()


def features(connector: Connector, tokens: int = 5, extra: int = 0) -> TextFeatures:
    """Two prompts, the second shorter; ``extra`` columns of padding that hold anything."""
    reading = connector.reading
    extra = 0 if reading.queries is not None else extra
    generator = torch.Generator().manual_seed(3)
    layers = len(reading.layers)

    def values() -> Tensor:
        real = torch.randn(2, layers, tokens, TEXT.width, generator=generator)
        return torch.cat([real, 100 * torch.randn(2, layers, extra, TEXT.width)], dim=2)

    mask = torch.ones(2, tokens + extra, dtype=torch.bool)
    mask[1, 3:], mask[:, tokens:] = False, False
    if reading.queries is not None:  # whose features are never padded
        mask[:] = True
    return TextFeatures(hidden=values(), mask=mask, context_free=values() if reading.context_free else None)


@pytest.mark.parametrize(
    ("kind", "options", "millions"),
    [
        ("mlp", {}, 2.16),
        ("resampler", {"blocks": 1}, 8.71),
        ("resampler", {}, 44.16),
        ("ella", {}, 66.82),
        ("ella_zero", {}, 73.91),
    ],
)
def test_published_numbers_of_weights(kind: str, options: dict[str, int], millions: float) -> None:
    """ELLA's table 6: T5-XL's or TinyLlama's 2048 into Stable Diffusion's 768."""
    with torch.device("meta"):
        made = build(kind, TextSpec(width=2048, layers=25), VisionSpec(context=768), **options)
    count = sum(value.numel() for value in made.parameters())
    assert round(count / 1e6, 2) == millions
    if kind == "ella":
        assert count == 66_820_608


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_no_real_token(kind: str) -> None:
    connector = shaken(build(kind, **SMALL.get(kind, {})))
    t = torch.tensor([10.0, 700.0])
    short, long = (connector(features(connector, extra=extra), t) for extra in (0, 4))
    real = short.mask
    torch.testing.assert_close(
        long.tokens[:, : real.shape[1]][real], short.tokens[real], atol=1e-4, rtol=1e-4
    )
    assert int(long.mask.sum()) == int(real.sum())


@pytest.mark.parametrize("kind", KINDS)
def test_time_matters_to_those_that_say_so(kind: str) -> None:
    connector = shaken(build(kind, **SMALL.get(kind, {})))
    given = features(connector)
    early, late = (connector(given, torch.full((2,), t)) for t in (10, 900))
    moved = (early.tokens - late.tokens).abs().max() > 1e-4
    assert bool(moved) == connector.time_aware
    if connector.time_aware:
        with pytest.raises(ValueError, match="pass t"):
            connector(given)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pooled_vector_where_the_vision_model_takes_one(kind: str) -> None:
    pooled_vision = VisionSpec(context=16, pooled=6, blocks=BLOCKS)
    connector = shaken(build(kind, vision=pooled_vision, **SMALL.get(kind, {})))
    t = torch.tensor([10.0, 700.0])
    short, long = (connector(features(connector, extra=extra), t) for extra in (0, 4))
    assert short.pooled is not None
    assert short.pooled.shape == (2, 6)
    torch.testing.assert_close(short.pooled, long.pooled, atol=1e-4, rtol=1e-4)
    own = build(kind, TextSpec(width=16, layers=4, pooled=6), pooled_vision, **SMALL.get(kind, {}))
    given = features(own)
    vector = torch.randn(2, 6)
    with_own = TextFeatures(
        hidden=given.hidden, mask=given.mask, context_free=given.context_free, pooled=vector
    )
    pooled = own(with_own, t).pooled
    # A vision half pools for every language model alike.
    assert (pooled is not vector) if kind == "pivot" else (pooled is vector)


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_beside_comes_first_and_untouched(kind: str) -> None:
    connector = shaken(build(kind, TextSpec(width=16, layers=4, passthrough=16), **SMALL.get(kind, {})))
    given, t = features(connector), torch.tensor([10.0, 700.0])
    kept, mask = torch.randn(2, 3, 16), torch.tensor([[True] * 3, [True, True, False]])
    both = connector(
        TextFeatures(
            hidden=given.hidden,
            mask=given.mask,
            context_free=given.context_free,
            passthrough_tokens=kept,
            passthrough_mask=mask,
        ),
        t,
    )
    without = connector(given, t)
    assert torch.equal(both.tokens[:, :3], kept)
    assert torch.equal(both.tokens[:, 3:], without.tokens)
    assert torch.equal(both.mask, torch.cat([mask, without.mask], dim=1))
    with pytest.raises(ModelError, match="20 wide"):
        build(kind, TextSpec(width=16, layers=4, passthrough=20))


def test_read_outs() -> None:
    hidden = torch.randn(2, 3, 5, 16)
    normed = functional.layer_norm(hidden, (16,))
    mean, norm_mean, learned = (make_read_out(name, TEXT) for name in ("mean", "norm_mean", "learned"))
    assert mean.layers == norm_mean.layers == learned.layers == (1, 2, 3)
    torch.testing.assert_close(mean(hidden), hidden.mean(1))
    torch.testing.assert_close(norm_mean(hidden), normed.mean(1))
    torch.testing.assert_close(learned(hidden), normed.mean(1))
    with torch.no_grad():
        learned.weights.copy_(torch.tensor([0.0, 50.0, 0.0]))  # type: ignore[union-attr]
    torch.testing.assert_close(learned(hidden), normed[:, 1])
    along = make_read_out("attention", TEXT)
    changed = hidden.clone()
    changed[0, 2, 4, 0] += 1
    moved = (along(changed) - along(hidden)).abs().amax(-1) > 1e-6
    assert moved.nonzero().tolist() == [[0, 4]]
    assert make_read_out(None, TEXT).layers == (1, 2, 3)
    assert make_read_out("last", TEXT).layers == (-1,)
    one = make_read_out(OneLayerReadOut(layer=2), TEXT)
    assert one.layers == (2,)
    assert torch.equal(one(hidden[:, :1]), hidden[:, 0])
    for layer in (4, -5):
        with pytest.raises(ModelError, match="layers 0 to 3"):
            make_read_out(OneLayerReadOut(layer=layer), TEXT)


def test_ella_attends_to_its_latents_and_the_text() -> None:
    """The published formula, one block, written out."""
    connector = shaken(build("ella", latents=3, blocks=1, heads=2, time_channels=8))
    given, t = features(connector, tokens=4), torch.tensor([321.0, 5.0])
    weights = connector.state_dict()

    def linear(x: Tensor, name: str) -> Tensor:
        return functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    angles = t[:, None] * torch.tensor([10_000 ** (-k / 4) for k in range(4)])
    time = linear(torch.cat([angles.cos(), angles.sin()], 1), "time_embedding.linear_1")
    time = linear(functional.silu(time), "time_embedding.linear_2")[:, None]
    block = "connector.perceiver_blocks.0"

    def norm(x: Tensor, name: str) -> Tensor:
        shift, scale = linear(functional.silu(time), f"{block}.{name}.linear").chunk(2, -1)
        return functional.layer_norm(x, (16,), eps=1e-6) * (1 + scale) + shift

    latents = weights["connector.latents"] + linear(functional.silu(time), "connector.time_aware_linear")
    read = functional.layer_norm(given.hidden, (16,)).mean(1)
    text = linear(read, "connector.proj_in")
    ask = norm(latents, "ln_1")
    both = torch.cat([ask, norm(text, "ln_2")], 1)
    w, b = weights[f"{block}.attn.in_proj_weight"], weights[f"{block}.attn.in_proj_bias"]
    q, k, v = (
        functional.linear(x, w[i * 16 : i * 16 + 16], b[i * 16 : i * 16 + 16]).unflatten(-1, (2, 8))
        for i, x in enumerate((ask, both, both))
    )
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / 8**0.5
    seen = torch.cat([torch.ones(2, 3, dtype=torch.bool), given.mask], 1)
    shares = scores.masked_fill(~seen[:, None, None], float("-inf")).softmax(-1)
    latents = latents + linear(
        torch.einsum("bhqk,bkhd->bqhd", shares, v).flatten(2), f"{block}.attn.out_proj"
    )
    inner = functional.relu(linear(norm(latents, "ln_ff"), f"{block}.mlp.c_fc")).square()
    expected = latents + linear(inner, f"{block}.mlp.c_proj")
    torch.testing.assert_close(connector(given, t).tokens, expected, atol=1e-4, rtol=1e-4)


def test_gates_and_refiner_begin_as_nothing() -> None:
    t = torch.tensor([10.0, 700.0])
    zero = build("ella_zero", latents=3, blocks=2, heads=2).eval()
    assert torch.equal(zero(features(zero), t).tokens[0], zero(features(zero, tokens=3), t).tokens[0])
    refiner = build("refiner", then="linear").eval()
    plain = build("linear").eval()
    plain.load_state_dict(
        {name.removeprefix("then."): value for name, value in refiner.state_dict().items() if "then." in name}
    )
    given = features(refiner)
    real = given.mask
    torch.testing.assert_close(refiner(given, t).tokens[real], plain(given).tokens[real])
    moved = features(refiner)
    moved.hidden[0, :, 4, 0] += 1  # the last token of the first prompt: the first one hears of it
    shaken(refiner)
    assert (refiner(moved, t).tokens - refiner(given, t).tokens)[0, 0].abs().max() > 1e-4


def test_refiner_names_what_it_cannot_stand_before() -> None:
    for kind in ("query", "dual_condition", "stacked_query", "llmdiff", "semantic_routing"):
        with pytest.raises(ModelError, match="reads the language model itself"):
            build("refiner", then=kind)
    with pytest.raises(RecipeError, match="did you mean 'lavi'"):
        build("refiner", then="lavy")
    with pytest.raises(RecipeError, match=r"connector\.then\.latent"):
        build("refiner", then={"kind": "resampler", "latent": 3})


def test_query_begins_at_the_scale_of_the_vision_model() -> None:
    scale = 5.5**0.5
    connector = build("query", vision=VisionSpec(context=16, rms=scale), queries=5, blocks=1)
    reading = connector.reading
    assert reading.queries is not None
    assert reading.queries.shape == (5, 16)
    given = TextFeatures(hidden=torch.randn(2, 1, 5, 16), mask=torch.ones(2, 5, dtype=torch.bool))
    rms = connector(given).tokens.detach().square().mean().sqrt()
    assert float(rms) == pytest.approx(scale, rel=1e-3)


@pytest.mark.parametrize("context_free", [True, False])
def test_llmdiff_says_what_its_formula_says(context_free: bool) -> None:
    connector = shaken(build("llmdiff", context_free=context_free))
    assert isinstance(connector, LlmDiff)
    assert connector.reading.context_free == context_free
    assert connector.reading.layers == (0, 1, 2, 3)
    given, weights = features(connector), connector.state_dict()
    c = given.hidden[:, 0]
    for k in range(3):
        added = given.hidden[:, k + 1] - (given.hidden[:, k] if k < 2 else 0)
        if given.context_free is not None:
            added = added - given.context_free[:, k + 1] + (given.context_free[:, k] if k < 2 else 0)
        c = c + weights["scores.gain"][k] * added
    c = c / (c.square().mean(-1, keepdim=True) + torch.finfo(torch.float32).eps).sqrt()
    made = connector(given)
    expected = functional.linear(c, weights["proj.weight"], weights["proj.bias"])
    torch.testing.assert_close(made.tokens, expected, atol=1e-5, rtol=1e-4)
    asks, answer = torch.randn(2, 7, 12), torch.randn(2, 7, 12)
    q = (asks @ weights["second.1.to_q.weight"].T).unflatten(-1, (2, 6)).transpose(1, 2)
    k, v = (
        (c @ weights[f"second.1.to_{name}.weight"].T).unflatten(-1, (2, 6)).transpose(1, 2) for name in "kv"
    )
    shares = (
        (q @ k.transpose(-1, -2) / 6**0.5).masked_fill(~given.mask[:, None, None], -torch.inf).softmax(-1)
    )
    first, second = weights["second.1.scale"] * weights["second.1.exponent"].exp()
    wanted = first * answer + second * (shares @ v).transpose(1, 2).flatten(2)
    attend = made.blocks["b"]
    assert not isinstance(attend, BlockTokens)
    torch.testing.assert_close(attend(asks, answer), wanted, atol=1e-4, rtol=1e-4)


def test_llmdiff_adds_noise_in_training_only_and_needs_cross_attention() -> None:
    connector = build("llmdiff")
    given = features(connector)
    assert not torch.equal(connector.train()(given).tokens, connector(given).tokens)
    connector.eval()
    assert torch.equal(connector(given).tokens, connector(given).tokens)
    with pytest.raises(ModelError, match="has none that stands alone"):
        build("llmdiff", vision=VisionSpec(context=16))


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ModelError, match="choose one of 1, 2, 4, 8, 16"):
        build("resampler", heads=5)


@pytest.mark.parametrize(
    ("width", "layers", "context", "read", "count"),
    [(5120, 41, 6144, (10, 20, 30), 15360 * 6144), (2560, 37, 3072, (9, 18, 27), 7680 * 3072)],
)
def test_stacked_reads_the_layers_of_flux2_at_its_size(
    width: int, layers: int, context: int, read: tuple[int, ...], count: int
) -> None:
    """FLUX.2 dev reads Mistral Small, klein 4B reads Qwen3-4B."""
    with torch.device("meta"):
        made = build("stacked", TextSpec(width=width, layers=layers), VisionSpec(context=context))
    assert made.reading.layers == read
    assert sum(value.numel() for value in made.parameters()) == count + context


def test_stacked_puts_layers_side_by_side_as_flux2_does() -> None:
    """The reference are the lines of Diffusers' pipeline, which stack on a new axis and permute."""
    hidden = torch.randn(2, 3, 5, TEXT.width)
    connector = build("stacked", layers=(1, 3, 2))
    reference = hidden.permute(0, 2, 1, 3).reshape(2, 5, 3 * TEXT.width)
    assert torch.equal(connector.read(hidden), reference)
    with pytest.raises(ModelError, match=r"connector\.layers: layer 4 does not exist"):
        build("stacked", layers=(1, 4))


def test_dual_condition_is_six_blocks_and_a_projection_at_unilip_s_size() -> None:
    """InternVL3-1B, 896 wide, into SANA's 2304: 256 vectors, and 12 width^2 weights in each block."""
    with torch.device("meta"):
        made = build("dual_condition", TextSpec(width=896, layers=25), VisionSpec(context=2304))
    assert made.reading.queries is not None
    assert made.reading.queries.shape == (256, 896)
    matrices = sum(value.numel() for name, value in made.named_parameters() if value.ndim == 2)
    assert matrices == 256 * 896 + 6 * 12 * 896**2 + 896 * 2304


def test_stacked_query_reads_deepgen_s_layers_at_its_size() -> None:
    """Qwen2.5-VL-3B's 36 layers of 2048 into tokens of 4096."""
    with torch.device("meta"):
        made = build("stacked_query", TextSpec(width=2048, layers=37), VisionSpec(context=4096))
    assert made.reading.layers == (35, 29, 23, 17, 11, 5)
    shapes = {name: tuple(value.shape) for name, value in made.named_parameters()}
    assert shapes["queries"] == (128, 2048)
    assert shapes["proj_in.weight"] == (2048, 12288)
    assert shapes["proj_out.weight"] == (4096, 2048)


def test_stacked_query_starts_without_influence_of_the_prompt() -> None:
    made = build("stacked_query", queries=3, width=16, heads=2, blocks=1)
    assert not made(features(made)).tokens.any()


def test_semantic_routing_has_a_weight_for_each_pair_of_layers_at_its_published_size() -> None:
    """24 layers of the image model read 36 layers of Qwen3-VL-4B, 2560 wide."""
    layers = {f"{index}": BlockSpec(width=2048, inner=2048, heads=16) for index in range(24)}
    with torch.device("meta"):
        made = build(
            "semantic_routing", TextSpec(width=2560, layers=37), VisionSpec(context=2048, blocks=layers)
        )
    assert made.reading.layers == tuple(range(1, 37))
    shapes = {name: tuple(value.shape) for name, value in made.named_parameters()}
    assert shapes == {"logits": (24, 36), "proj.weight": (2048, 2560), "proj.bias": (2048,)}


def test_semantic_routing_fuses_normed_layers_for_each_block() -> None:
    """The formula; it starts with equal weights, and a block's weights change that block alone."""
    made = build("semantic_routing").eval()
    given = features(made)
    normed = functional.layer_norm(given.hidden, (TEXT.width,))
    first = made(given)
    for block in first.blocks.values():
        assert isinstance(block, BlockTokens)
        torch.testing.assert_close(block.tokens, made.proj(normed.mean(1)))
    with torch.no_grad():
        made.logits[1] = torch.tensor([0.0, 50.0, 0.0])
    routed = made(given)
    own = routed.blocks["b"]
    assert isinstance(own, BlockTokens)
    torch.testing.assert_close(own.tokens, made.proj(normed[:, 1]))
    assert torch.equal(routed.blocks["a"].tokens, first.blocks["a"].tokens)  # type: ignore[union-attr]
    with pytest.raises(ModelError, match="none that stands alone"):
        build("semantic_routing", vision=VisionSpec(context=16))
