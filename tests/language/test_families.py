"""What every language family promises, on the real class at toy size."""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import pytest
import torch

from lavibridge.core import registry
from lavibridge.core.contracts import ReadingSpec
from lavibridge.core.errors import ModelError, RecipeError
from lavibridge.core.packaged import PACKAGED
from lavibridge.language.base import LanguageModel
from lavibridge.language.clip import ClipText
from lavibridge.language.hf import TransformersModel
from lavibridge.language.parts.toys import TOY

KINDS = registry.kinds("language")
SHORT, LONG = "a red cat", "a much longer prompt: a boat, a house — and a naïve tree"
_BUILT: dict[str, LanguageModel] = {}


def toy(kind: str, **options: object) -> LanguageModel:
    family = registry.load_kind("language", kind)
    return family(family.Config(source="random", **options))  # type: ignore[no-any-return]


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest) -> LanguageModel:
    if request.param not in _BUILT:
        _BUILT[request.param] = toy(request.param)
    return _BUILT[request.param]


def test_prompt_is_the_same_alone_and_beside_longer_ones(model: LanguageModel) -> None:
    layers = ReadingSpec(layers=(0, 1, -1), context_free=True)
    alone = model.encode([SHORT], layers)
    beside = model.encode([LONG, SHORT, ""], layers)
    tokens = alone.mask.shape[1]
    assert torch.equal(beside.mask[1].nonzero().flatten(), torch.arange(tokens))
    torch.testing.assert_close(beside.hidden[1, :, :tokens], alone.hidden[0], atol=1e-5, rtol=1e-5)
    if alone.pooled is not None:
        assert beside.pooled is not None
        torch.testing.assert_close(beside.pooled[1], alone.pooled[0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_layer_read_alone_is_that_of_the_whole_model_and_no_block_above_it_runs(
    model: LanguageModel,
) -> None:
    """The reference is the library's own list of hidden states, and the output for the last layer."""
    whole: TransformersModel = getattr(model, "inner", model)  # type: ignore[assignment]
    last = model.spec.layers - 1
    tokens = whole.tokens([LONG, SHORT])
    inputs = {"input_ids": tokens.ids, "attention_mask": tokens.mask.long(), **whole.call_options}
    expected = whole.backbone(**inputs, output_hidden_states=True)
    ran: list[int] = []
    hooks = [
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
        for number, block in enumerate(whole.blocks)
    ]
    for layer in range(model.spec.layers):
        ran.clear()
        features = model.encode([LONG, SHORT], ReadingSpec(layers=(layer,)))
        states = expected.last_hidden_state if layer == last else expected.hidden_states[layer]
        assert torch.equal(features.hidden[:, 0], states)
        is_whole = whole.spec.pooled is not None  # the pooled vector comes from the last layer
        assert ran == list(range(last if is_whole else max(1, layer)))
    for hook in hooks:
        hook.remove()


def test_two_threads_read_different_layers_of_one_model() -> None:
    model, prompts = toy("llama"), [LONG, SHORT]
    layers = (0, 1, 2) * 8
    expected = [model.encode(prompts, ReadingSpec(layers=(layer,))).hidden for layer in range(3)]
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda layer: model.encode(prompts, ReadingSpec(layers=(layer,))).hidden, layers)
    assert all(torch.equal(hidden, expected[layer]) for layer, hidden in zip(layers, found, strict=True))


class Albert(TransformersModel):
    """Runs one and the same block several times, so that no list holds its layers."""

    models = {"albert": "AlbertModel"}  # noqa: RUF012 - a constant of the class
    toy_template = "<s> $A </s>"
    toy = {**TOY, "embedding_size": 16}  # noqa: RUF012 - a constant of the class


def test_a_model_without_a_list_of_blocks_runs_whole() -> None:
    model = Albert(LanguageModel.Config(source="random"))
    assert not model.unread(ReadingSpec(layers=(0,)))
    hidden = model.encode([SHORT], ReadingSpec(layers=(0, 1, 2))).hidden
    assert torch.equal(hidden[:, 1], model.encode([SHORT], ReadingSpec(layers=(1,))).hidden[:, 0])
    assert (hidden[:, 1] - hidden[:, 2]).abs().max() > 1e-3


def test_many_prompts_are_read_once_each_and_with_little_padding(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lavibridge.language.base.CPU_TOKENS", 150)
    reading = ReadingSpec(layers=(1, -1))
    prompts = [SHORT, LONG, "", "a red car", SHORT, "x" * 10_000, LONG]
    batches: list[list[str]] = []
    encode = model.encode
    monkeypatch.setattr(
        model, "encode", lambda some, read: (batches.append(list(some)), encode(some, read))[1]
    )
    found = dict(model.encode_many(prompts, reading))
    assert sorted(chain(*batches)) == sorted(set(prompts))
    lengths = [model.sequence_lengths(batch) for batch in batches]
    assert list(chain(*lengths)) == sorted(chain(*lengths), reverse=True)
    assert all(len(each) == 1 or len(each) * each[0] <= 150 for each in lengths)
    assert not list(model.encode_many([], reading))
    expected = encode(prompts, reading).split()
    for prompt, each in zip(prompts, expected, strict=True):
        assert torch.equal(found[prompt].mask, each.mask)
        torch.testing.assert_close(found[prompt].hidden, each.hidden, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"see_padding": True}, {"template": "Describe: {prompt} now"}])
def test_the_length_of_a_prompt_is_that_of_its_row(options: dict[str, object]) -> None:
    model = toy("qwen", max_tokens=30, **options)
    for prompt in (SHORT, "", "x" * 100):
        assert model.sequence_lengths([prompt]) == [model.tokens([prompt]).ids.shape[1]]  # type: ignore[operator, union-attr]


def test_prompts_differ_and_layers_differ(model: LanguageModel) -> None:
    features = model.encode([SHORT, "a red car"], ReadingSpec(layers=(0, 1, -1)))
    assert features.hidden.shape[1:] == (3, features.mask.shape[1], model.spec.width)
    assert (features.hidden[0, 2] - features.hidden[1, 2]).abs().max() > 1e-3
    assert (features.hidden[:, 1] - features.hidden[:, 2]).abs().max() > 1e-3


def test_last_layer_has_two_names(model: LanguageModel) -> None:
    last = model.spec.layers - 1
    by_end, by_number = (model.encode([SHORT], ReadingSpec(layers=(layer,))).hidden for layer in (-1, last))
    assert torch.equal(by_end, by_number)
    with pytest.raises(ModelError, match="layers"):
        model.encode([SHORT], ReadingSpec(layers=(last + 1,)))


def test_empty_prompt_has_a_token(model: LanguageModel) -> None:
    features = model.encode([""])
    assert features.mask.any()
    assert torch.isfinite(features.hidden).all()


def test_long_prompts_are_cut_and_counted(model: LanguageModel) -> None:
    limit = model.max_tokens
    used, cut = model.count_tokens(["x" * 10_000, "hi"])
    assert used[0] == limit
    assert used[0] + cut[0] >= 10_000
    assert cut[1] == 0
    assert model.encode(["x" * 10_000]).mask.shape == (1, limit)


@pytest.mark.parametrize("kind", KINDS)
def test_see_padding_shows_every_row(kind: str) -> None:
    model = toy(kind, see_padding=True, max_tokens=12)
    alone, beside = model.encode(["cat"]), model.encode(["cat", "abcdefghij"])
    assert alone.mask.shape == (1, 12)
    assert bool(alone.mask.all())
    torch.testing.assert_close(beside.hidden[0], alone.hidden[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "clip"])
def test_causal_models_do_not_mind_padding(kind: str) -> None:
    """Real tokens stand before the padding, so seeing it or not is the same."""
    seen = toy(kind, see_padding=True, max_tokens=40).encode([SHORT]).hidden
    hidden = toy(kind).encode([SHORT]).hidden
    torch.testing.assert_close(seen[:, :, : hidden.shape[2]], hidden, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["t5", "bert"])
def test_bidirectional_models_see_padding_only_when_told(kind: str) -> None:
    seen = toy(kind, see_padding=True, max_tokens=40).encode([SHORT]).hidden
    hidden = toy(kind).encode([SHORT]).hidden
    assert (seen[:, :, : hidden.shape[2]] - hidden).abs().max() > 1e-3


def test_toys_are_always_the_same(model: LanguageModel) -> None:
    before = torch.random.get_rng_state()
    again = toy(registry.kind_of("language", model))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(again.encode([SHORT]).hidden, model.encode([SHORT]).hidden)


def test_saved_folder_is_detected_and_read(model: LanguageModel, tmp_path: Path) -> None:
    kind = registry.kind_of("language", model)
    if kind == "pair":
        pytest.skip("a pair is two folders and is asked for by name")
    model.backbone.save_pretrained(tmp_path)  # type: ignore[operator]
    model.tokenizer.save_pretrained(tmp_path)  # type: ignore[operator, union-attr]
    assert registry.detect_kind("language", str(tmp_path)) == kind
    family = registry.load_kind("language", kind)
    loaded = family(family.Config(source=str(tmp_path)))
    torch.testing.assert_close(loaded.encode([LONG]).hidden, model.encode([LONG]).hidden)


def test_stable_diffusion_folder_gives_its_text_encoder(tmp_path: Path) -> None:
    model = toy("clip")
    model.backbone.save_pretrained(tmp_path / "text_encoder")  # type: ignore[operator]
    model.tokenizer.save_pretrained(tmp_path / "tokenizer")  # type: ignore[operator, union-attr]
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    assert registry.detect_kind("language", str(tmp_path)) == "clip"
    family = registry.load_kind("language", "clip")
    loaded = family(family.Config(source=str(tmp_path)))
    torch.testing.assert_close(loaded.encode([SHORT]).hidden, model.encode([SHORT]).hidden)


def test_bfloat16_gives_float32_features() -> None:
    features = toy("t5", dtype="bfloat16").encode([SHORT])
    assert features.hidden.dtype == torch.float32
    exact = toy("t5").encode([SHORT]).hidden
    assert (features.hidden - exact).abs().max() < 0.1 * exact.abs().max()


def test_errors_name_the_cause(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean 'llama'"):
        registry.load_kind("language", "lama")
    with pytest.raises(ModelError, match="no model folder"):
        registry.detect_kind("language", str(tmp_path / "nowhere"))
    with pytest.raises(ModelError, match=r"no config\.json"):
        registry.detect_kind("language", str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "whisper"}))
    with pytest.raises(ModelError, match="no language family"):
        registry.detect_kind("language", str(tmp_path))
    t5 = registry.load_kind("language", "t5")
    with pytest.raises(ModelError, match="'whisper'"):
        t5(t5.Config(source=str(tmp_path)))
    with pytest.raises(ModelError, match="max_tokens is 500"):
        toy("clip", max_tokens=500)


def test_missing_weights_are_an_error(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = toy("t5")
    model.backbone.save_pretrained(tmp_path)  # type: ignore[operator]
    model.tokenizer.save_pretrained(tmp_path)  # type: ignore[operator, union-attr]
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop(next(name for name in weights if name.endswith("SelfAttention.v.weight")))
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    family = registry.load_kind("language", "t5")
    with pytest.raises(ModelError, match="lacks 1 weights"):
        family(family.Config(source=str(tmp_path)))


@pytest.mark.skipif(PACKAGED["minilm"].path() is None, reason="needs the extra [minilm]")
def test_real_minilm_knows_meaning() -> None:
    """A real pretrained model: sentences of like meaning lie closer than others."""
    assert registry.detect_kind("language", "minilm") == "bert"
    family = registry.load_kind("language", "bert")
    features = family(family.Config(source="minilm")).encode(
        ["a small dog", "a little puppy", "the stock market fell"]
    )
    mask = features.mask[:, :, None]
    means = (features.hidden[:, -1] * mask).sum(1) / mask.sum(1)
    one = torch.nn.functional.normalize(means, dim=-1)
    assert one[0] @ one[1] > one[0] @ one[2] + 0.3


class ClipOfFewPositions(ClipText):
    toy = {**ClipText.toy, "max_position_embeddings": 16}  # noqa: RUF012 - a constant of the class


def test_the_default_limit_follows_the_model() -> None:
    limits = {kind: toy(kind).max_tokens for kind in ("llama", "qwen", "gemma", "t5", "clip", "bert")}
    positions = {kind: toy(kind).backbone.config for kind in limits}
    assert limits["t5"] == 512
    for kind in ("llama", "qwen", "gemma"):
        assert limits[kind] == min(256, positions[kind].max_position_embeddings)
    for kind in ("clip", "bert"):
        assert limits[kind] == min(512, positions[kind].max_position_embeddings)
    assert ClipOfFewPositions(LanguageModel.Config(source="random")).max_tokens == 16
    assert load("mini-t5-small").max_tokens == 256, "its tokenizer states that"
    assert load("mini-clip").max_tokens == 64


def load(source: str, **options: object) -> LanguageModel:
    family = registry.load_kind("language", registry.detect_kind("language", source))
    model: LanguageModel = family(family.Config(source=source, **options))
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_states_the_limit_in_force(kind: str) -> None:
    """What is saved, and every key of a cache, holds a number."""
    model = toy(kind)
    assert model.config.max_tokens == model.max_tokens
    assert f'"max_tokens": {model.max_tokens}' in model.identity()
    if kind != "pair":
        assert model.identity() == toy(kind, max_tokens=model.max_tokens).identity()


@pytest.mark.parametrize("kind", KINDS)
def test_null_and_visible_padding_keep_the_limit_of_the_published_u_nets(kind: str) -> None:
    assert toy(kind, max_tokens=None).max_tokens <= 77
    assert toy(kind, see_padding=True).max_tokens <= 77
    assert toy("t5", max_tokens=None).max_tokens == toy("t5", see_padding=True).max_tokens == 77


@pytest.mark.parametrize("kind", KINDS)
def test_a_longer_limit_changes_no_prompt_that_fitted(kind: str) -> None:
    """Prompts are padded to the longest of their batch."""
    if kind == "pair":
        pytest.skip("a pair's limits are those of its two models")
    short, long = toy(kind, max_tokens=None).encode([SHORT]), toy(kind).encode([SHORT])
    assert torch.equal(short.hidden, long.hidden)


@pytest.mark.parametrize("source", ["mini-llama", "mini-t5-small", "mini-bert", "mini-clip"])
def test_the_limit_is_known_without_weights(source: str) -> None:
    family = registry.load_kind("language", registry.detect_kind("language", source))
    for template in (None, "Describe this picture: {prompt}"):
        config = family.Config(source=source, template=template)
        limit = family.default_max_tokens(config)
        assert limit == family(config).max_tokens == family(config, torch.device("meta")).max_tokens


@pytest.mark.parametrize("kind", KINDS)
def test_a_template_s_instruction_is_read_but_not_kept(kind: str) -> None:
    template = "Describe: {prompt} as a picture"
    if kind == "pair":
        pytest.skip("a pair's templates are those of its two models")
    plain, framed = toy(kind), toy(kind, template=template)
    instructed, whole = framed.encode([SHORT, LONG]), plain.encode([template.replace("{prompt}", SHORT)])
    begin = len(framed.tokens.begin)  # type: ignore[operator, union-attr, arg-type]
    before = len("Describe: ")
    expected = torch.cat([whole.hidden[0, :, :begin], whole.hidden[0, :, begin + before :]], dim=1)
    real = instructed.mask[0]
    torch.testing.assert_close(instructed.hidden[0][:, real], expected, atol=1e-5, rtol=1e-5)
    used, _ = framed.count_tokens([SHORT])
    assert used == [int(real.sum())]


def test_templates_that_cannot_be_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"must hold \{prompt\} once"):
        toy("llama", template="Describe the picture")
    with pytest.raises(ModelError, match="shorten the template"):
        toy("llama", template="{prompt} and so on", max_tokens=5)
    with pytest.raises(ModelError, match="100 of the template"):
        toy("llama", template="x" * 100 + "{prompt}", max_tokens=60)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "pair"])
def test_tokens_are_the_tokenizer_s_own(kind: str) -> None:
    model = toy(kind)
    own = model.tokenizer(SHORT)["input_ids"]  # type: ignore[operator, union-attr]
    made = model.tokens([SHORT, LONG])  # type: ignore[operator, union-attr]
    assert made.ids[0][made.mask[0]].tolist() == own
    cut = toy(kind, max_tokens=8).tokens([LONG])  # type: ignore[operator, union-attr]
    expected = model.tokenizer(LONG, truncation=True, max_length=8)["input_ids"]  # type: ignore[operator, union-attr]
    assert cut.ids[0].tolist() == expected


def test_queries_stand_behind_each_prompt(model: LanguageModel) -> None:
    vectors = torch.randn(3, model.spec.width, requires_grad=True)
    reading = ReadingSpec(layers=(1, -1), queries=vectors)
    if registry.kind_of("language", model) in ("clip", "siglip"):
        with pytest.raises(ModelError, match="takes tokens only"):
            model.encode([SHORT], reading)
        return
    both = model.encode([SHORT, LONG], reading)
    assert both.hidden.shape == (2, 2, 3, model.spec.width)
    assert bool(both.mask.all())
    torch.testing.assert_close(model.encode([SHORT], reading).hidden[0], both.hidden[0], atol=1e-5, rtol=1e-4)
    assert (both.hidden[0] - both.hidden[1]).abs().max() > 1e-3
    # Weighted squares: the sum of what a layer norm gives is the same whatever goes in.
    (both.hidden**2 * torch.arange(model.spec.width)).sum().backward()
    assert vectors.grad is not None
    assert bool(vectors.grad.any(dim=1).all())


def test_the_prompt_s_own_tokens_precede_the_queries_if_they_are_kept(model: LanguageModel) -> None:
    if registry.kind_of("language", model) in ("clip", "siglip"):
        pytest.skip("takes tokens only")
    queries = torch.randn(3, model.spec.width)
    alone = model.encode([SHORT, LONG], ReadingSpec(layers=(1, -1), queries=queries))
    both = model.encode([SHORT, LONG], ReadingSpec(layers=(1, -1), queries=queries, keeps_prompt=True))
    used, _ = model.count_tokens([SHORT, LONG])
    for row, count in enumerate(used):
        assert int(both.mask[row].sum()) == count + 3
        assert torch.equal(both.hidden[row, :, count : count + 3], alone.hidden[row])
    is_causal = registry.kind_of("language", model) in ("llama", "qwen", "gemma", "auto_model")
    if is_causal:  # where the vectors behind a prompt change nothing before them
        plain = model.encode([SHORT], ReadingSpec(layers=(1, -1)))
        torch.testing.assert_close(both.hidden[0, :, : used[0]], plain.hidden[0], atol=1e-5, rtol=1e-5)


def test_a_template_is_left_out_of_kept_prompts() -> None:
    queries = torch.randn(2, 32)
    reading = ReadingSpec(queries=queries, keeps_prompt=True)
    framed, plain = toy("llama", template="Draw: {prompt}!"), toy("llama")
    features, whole = framed.encode([SHORT], reading), plain.encode([f"Draw: {SHORT}!"], reading)
    expected = torch.cat([whole.hidden[:, :, :1], whole.hidden[:, :, 1 + len("Draw: ") :]], dim=2)
    torch.testing.assert_close(features.hidden, expected, atol=1e-5, rtol=1e-5)


def test_a_token_alone_is_its_prompt_of_one_token() -> None:
    """In a causal model the first token stands alone anyway, and later ones do not."""
    model = toy("llama")
    features = model.encode([SHORT], ReadingSpec(layers=(0, 1, -1), context_free=True))
    assert features.context_free is not None
    torch.testing.assert_close(features.context_free[:, :, 0], features.hidden[:, :, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(features.context_free[:, 0], features.hidden[:, 0])
    assert (features.context_free[:, 2, 1:] - features.hidden[:, 2, 1:]).abs().max() > 1e-3


def test_the_connector_alone_may_see_padding() -> None:
    masked = toy("t5", see_padding="connector", max_tokens=30)
    features, plain = masked.encode([SHORT]), toy("t5").encode([SHORT])
    assert bool(features.mask.all())
    assert features.mask.shape == (1, 30)
    torch.testing.assert_close(features.hidden[:, :, : plain.mask.shape[1]], plain.hidden)


def test_a_pair_keeps_the_other_model_s_tokens_beside() -> None:
    pair = toy("pair", of="t5", passthrough={"kind": "clip", "source": "random", "max_tokens": 20})
    inner, other = toy("t5"), toy("clip", see_padding=True, max_tokens=20)
    features, kept = pair.encode([SHORT, LONG]), other.encode([SHORT, LONG])
    torch.testing.assert_close(features.hidden, inner.encode([SHORT, LONG]).hidden)
    assert features.passthrough_tokens is not None
    torch.testing.assert_close(features.passthrough_tokens, kept.hidden[:, -1])
    assert torch.equal(features.passthrough_mask, kept.mask)  # type: ignore[arg-type]
    torch.testing.assert_close(features.pooled, kept.pooled)
    assert pair.spec.passthrough == other.spec.width
    assert pair.backbone.config.model_type == "t5"  # type: ignore[union-attr]
    with pytest.raises(RecipeError, match=r"language\.passthrough\.sauce"):
        toy("pair", passthrough={"kind": "clip", "source": "random", "sauce": 1})


def test_a_tokenizer_without_a_pad_is_named(tmp_path: Path) -> None:
    model = toy("t5")
    model.backbone.save_pretrained(tmp_path)  # type: ignore[operator]
    model.tokenizer.save_pretrained(tmp_path)  # type: ignore[operator, union-attr]
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        place = tmp_path / name
        if place.exists():
            settings = json.loads(place.read_text())
            settings.pop("pad_token", None)
            place.write_text(json.dumps(settings))
    family = registry.load_kind("language", "t5")
    with pytest.raises(ModelError, match="no pad token to pad with"):
        family(family.Config(source=str(tmp_path)))


def test_a_damaged_or_pickled_model_is_refused(tmp_path: Path) -> None:
    model, family = toy("t5"), registry.load_kind("language", "t5")
    model.backbone.save_pretrained(tmp_path)  # type: ignore[operator]
    model.tokenizer.save_pretrained(tmp_path)  # type: ignore[operator, union-attr]
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"\xff" * 8 + whole[8:], whole[:20] + b"}" + whole[21:]):
        weights.write_bytes(damaged)
        with pytest.raises(ModelError, match="cannot be loaded"):
            family(family.Config(source=str(tmp_path)))
    weights.unlink()
    torch.save(model.backbone.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot be loaded"):
        family(family.Config(source=str(tmp_path)))
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        family(family.Config(source=str(tmp_path)))


def test_quantized_weights_need_their_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # an extra that may be installed
    with pytest.raises(ModelError, match=r"lavibridge\[quantize\]"):
        toy("t5", quantize="4bit")


@pytest.mark.parametrize(("bits", "most"), [("8bit", 0.03), ("4bit", 0.12)])
@pytest.mark.parametrize("source", ["mini-llama", "mini-t5-small"])
def test_features_of_quantised_weights_are_near_the_whole_ones(source: str, bits: str, most: float) -> None:
    pytest.importorskip("bitsandbytes", reason="needs the extra [quantize]")
    family = registry.load_kind("language", registry.detect_kind("language", source))
    whole, small = (
        family(family.Config(source=source, quantize=each)).encode([SHORT, LONG]).hidden
        for each in (None, bits)
    )
    assert 0 < (small - whole).norm() < most * whole.norm()
