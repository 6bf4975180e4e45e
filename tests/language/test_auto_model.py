"""The language models of today: the generic path reads the real classes as the Transformers library does."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors import safe_open
from toy_text_models import SIZES, TOYS, TextToy, save_toy

from lavibridge.bridge.choices import model_of_choice
from lavibridge.core import registry
from lavibridge.core.contracts import ReadingSpec
from lavibridge.core.errors import ModelError
from lavibridge.language.auto_model import AutoText
from lavibridge.language.hf import TransformersModel
from lavibridge.language.parts.byte_tokens import byte_tokenizer

SHORT, LONG = "a red cat", "a much longer prompt: a boat, a house and a tree " * 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    root = tmp_path_factory.mktemp("toys")
    return {name: save_toy(name, root / name) for name in TOYS}


@pytest.fixture(scope="module")
def models(folders: Mapping[str, Path]) -> Mapping[str, TransformersModel]:
    return {name: model_of_choice("language", {"source": str(folder)}) for name, folder in folders.items()}


@pytest.fixture(params=TOYS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def toy(name: str) -> TextToy:
    return TOYS[name]


@pytest.fixture
def model(name: str, models: Mapping[str, TransformersModel]) -> TransformersModel:
    return models[name]


def whole_model(name: str, folder: Path) -> Any:
    """The model as its library loads it, with its image tower, its decoder and its heads."""
    return getattr(transformers, TOYS[name].saved).from_pretrained(folder).eval()


@torch.no_grad()
def test_every_layer_is_that_of_the_whole_model(
    name: str, toy: TextToy, model: TransformersModel, folders: Mapping[str, Path]
) -> None:
    whole = whole_model(name, folders[name])
    part = whole.get_encoder() if whole.config.is_encoder_decoder else whole.base_model
    tokens = model.tokens([LONG, SHORT])
    expected = part(
        input_ids=tokens.ids,
        attention_mask=tokens.mask.long(),
        output_hidden_states=True,
        **model.call_options,
    )
    layers = tuple(range(model.spec.layers))
    assert len(expected.hidden_states) == len(layers)
    found = model.encode([LONG, SHORT], ReadingSpec(layers=layers)).hidden
    real = tokens.mask
    for layer in layers:
        states = expected.last_hidden_state if layer == layers[-1] else expected.hidden_states[layer]
        torch.testing.assert_close(found[:, layer][real], states[real], atol=1e-5, rtol=1e-5)


def test_the_kind_is_found_and_what_it_states(
    name: str, toy: TextToy, model: TransformersModel, folders: Mapping[str, Path]
) -> None:
    assert registry.detect_kind("language", str(folders[name])) == toy.kind
    assert set(model.lora_targets) == set(toy.lora)
    assert model.spec.read == ("norm_mean" if toy.is_causal else "last")
    positions = SIZES["max_position_embeddings"] - (name == "xlm_roberta")
    assert model.max_tokens == min(256 if toy.is_causal else 512, positions)
    family = registry.load_kind("language", toy.kind)
    config = family.Config(source=str(folders[name]))
    assert family.default_max_tokens(config) == model.max_tokens
    if toy.text is not None:
        assert type(model.backbone).__name__ == toy.text


@torch.no_grad()
def test_padding_changes_no_features(model: TransformersModel) -> None:
    """Also where the padding is longer than the window of local attention."""
    layers = ReadingSpec(layers=tuple(range(model.spec.layers)))
    alone, beside = model.encode([SHORT], layers).hidden[0], model.encode([LONG, SHORT], layers).hidden[1]
    change = (beside[:, : alone.shape[1]] - alone).flatten(1).norm(dim=1) / alone.flatten(1).norm(dim=1)
    assert change.max() < 1e-4
    assert not getattr(model, "reads_singly", False)


def test_only_the_blocks_below_the_layer_run(model: TransformersModel) -> None:
    last = model.spec.layers - 1
    assert len(model.blocks) == last
    ran: list[int] = []
    hooks = [
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
        for number, block in enumerate(model.blocks)
    ]
    for layer in range(last + 1):
        ran.clear()
        model.encode([SHORT], ReadingSpec(layers=(layer,)))
        assert ran == list(range(max(1, layer)))
    for hook in hooks:
        hook.remove()


def test_words_without_context_and_vectors_in_place_of_words(toy: TextToy, model: TransformersModel) -> None:
    alone = model.encode(["a"], ReadingSpec(context_free=True))
    assert alone.context_free is not None
    torch.testing.assert_close(alone.context_free[0, :, 0], alone.hidden[0, :, 0]) if toy.is_causal else None
    vectors = torch.randn(3, model.spec.width, requires_grad=True)
    reading = ReadingSpec(queries=vectors)
    if not toy.queries:
        with pytest.raises(ModelError, match="takes tokens only"):
            model.encode([SHORT], reading)
        return
    both = model.encode([SHORT, LONG], reading)
    torch.testing.assert_close(model.encode([SHORT], reading).hidden[0], both.hidden[0], atol=1e-5, rtol=1e-4)
    (both.hidden**2 * torch.arange(model.spec.width)).sum().backward()
    assert vectors.grad is not None
    assert bool(vectors.grad.any(dim=1).all())


class ReadTensors:
    """A safetensors file of the library's loader, which notes whose values are read."""

    names: set[str]

    def __init__(self, *place: Any, **options: Any) -> None:
        self.file = safe_open(*place, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __exit__(self, *error: Any) -> None:
        self.file.__exit__(*error)

    def get_slice(self, name: str) -> Any:
        return _Slice(self.file.get_slice(name), name, self.names)


class _Slice:
    def __init__(self, inner: Any, name: str, names: set[str]) -> None:
        self.inner, self.name, self.names = inner, name, names

    def __getitem__(self, place: Any) -> Any:
        self.names.add(self.name)
        return self.inner[place]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@pytest.mark.parametrize("name", [name for name, toy in TOYS.items() if toy.tower])
def test_the_image_tower_is_not_read(
    name: str, toy: TextToy, folders: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: set[str] = set()
    monkeypatch.setattr(
        "transformers.modeling_utils.safe_open", type("Noted", (ReadTensors,), {"names": read})
    )
    model = model_of_choice("language", {"source": str(folders[name])})
    with safe_open(folders[name] / "model.safetensors", "pt") as file:
        stored = set(file.keys())
        sizes = {each: file.get_slice(each).get_shape() for each in stored}
    assert any(toy.tower in each for each in stored)
    assert len(read) == len(model.backbone.state_dict())
    assert not any(word in each for each in read for word in (toy.tower, "projector", "decoder", "lm_head"))
    assert sum(map(torch.Size.numel, (torch.Size(sizes[each]) for each in read))) == sum(
        value.numel() for value in model.backbone.state_dict().values()
    )


def test_on_the_meta_device_it_has_the_same_weights(
    toy: TextToy, model: TransformersModel, name: str, folders: Mapping[str, Path]
) -> None:
    planned = model_of_choice("language", {"source": str(folders[name])}, torch.device("meta"))
    shapes = [
        {key: value.shape for key, value in each.named_parameters()}
        for each in (planned.backbone, model.backbone)
    ]
    assert shapes[0] == shapes[1]
    assert planned.spec == model.spec
    assert planned.lora_targets == model.lora_targets


PUBLISHED: Mapping[str, tuple[dict[str, Any], float]] = {
    "SmolLM3-3B": (
        {
            "model_type": "smollm3",
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 4,
            "vocab_size": 128256,
        },
        3_075_098_624,
    ),
    "GLM-4-9B-0414": (
        {
            "model_type": "glm4",
            "hidden_size": 4096,
            "intermediate_size": 13696,
            "num_hidden_layers": 40,
            "num_attention_heads": 32,
            "num_key_value_heads": 2,
            "head_dim": 128,
            "attention_bias": True,
            "vocab_size": 151552,
        },
        9_400_279_040 - 151552 * 4096,
    ),
    "Phi-3-mini": (
        {
            "model_type": "phi3",
            "hidden_size": 3072,
            "intermediate_size": 8192,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "vocab_size": 32064,
        },
        3_821_079_552 - 32064 * 3072,
    ),
    "gpt-oss-20b": (
        {"model_type": "gpt_oss", "num_hidden_layers": 24, "num_local_experts": 32},
        20.91e9 - 201088 * 2880,
    ),
    "gpt-oss-120b": (
        {"model_type": "gpt_oss", "num_hidden_layers": 36, "num_local_experts": 128},
        116.83e9 - 201088 * 2880,
    ),
    "ModernBERT-base": ({"model_type": "modernbert"}, 149_014_272),
    "XLM-R base": (
        {
            "model_type": "xlm-roberta",
            "vocab_size": 250002,
            "max_position_embeddings": 514,
            "type_vocab_size": 1,
        },
        278_043_648 - 768 * 769,
    ),
    "Qwen2.5-VL-7B": (
        {
            "model_type": "qwen2_5_vl",
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152064,
            "vision_config": {"model_type": "qwen2_5_vl", "hidden_size": 1280, "out_hidden_size": 3584},
        },
        7_615_616_512 - 152064 * 3584,
    ),
    "Qwen3-VL-4B": (
        {
            "model_type": "qwen3_vl",
            "text_config": {
                "model_type": "qwen3_vl_text",
                "hidden_size": 2560,
                "intermediate_size": 9728,
                "num_hidden_layers": 36,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "head_dim": 128,
                "vocab_size": 151936,
            },
            "vision_config": {},
        },
        4_022_468_096,
    ),
    "Mistral-Small-3.1-24B": ({"model_type": "mistral3"}, 23_572_403_200 - 131072 * 5120),
    "Gemma 3 4B": (
        {
            "model_type": "gemma3",
            "text_config": {
                "model_type": "gemma3_text",
                "hidden_size": 2560,
                "intermediate_size": 10240,
                "num_hidden_layers": 34,
                "num_attention_heads": 8,
                "num_key_value_heads": 4,
                "head_dim": 256,
            },
        },
        3_209e6 + 262_208 * 2560,
    ),
}
"""What config.json states beyond the library's defaults; the published number of weights without a head."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_at_published_size_it_has_the_published_number_of_weights(name: str, tmp_path: Path) -> None:
    description, published = PUBLISHED[name]
    model = model_of_choice("language", described(tmp_path, description), torch.device("meta"))
    weights = sum(value.numel() for value in model.backbone.parameters())
    assert weights == pytest.approx(published, rel=1e-3)


def described(folder: Path, description: Mapping[str, Any]) -> str:
    """A folder with a config.json alone."""
    (folder / "config.json").write_text(json.dumps(description))
    return str(folder)


def copied(folder: Path, target: Path, tensors: bool = True) -> dict[str, Any]:
    """Link a toy's files into another folder, without its config.json, which is returned."""
    for path in folder.iterdir():
        if path.name != "config.json" and (tensors or path.suffix != ".safetensors"):
            (target / path.name).symlink_to(path)
    content: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return content


def test_the_flat_configuration_of_the_hub_is_read(
    folders: Mapping[str, Path], models: Mapping[str, TransformersModel], tmp_path: Path
) -> None:
    """Qwen2.5-VL's states the sizes of its text part beside those of the image tower."""
    content = copied(folders["qwen2_5_vl"], tmp_path)
    text = content.pop("text_config")
    text.pop("model_type")
    flat = model_of_choice("language", described(tmp_path, {**text, **content}))
    expected = models["qwen2_5_vl"].encode([SHORT]).hidden
    torch.testing.assert_close(flat.encode([SHORT]).hidden, expected)


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model.", "model.", ""])
def test_the_names_of_a_text_part_s_weights_in_files_of_any_age(
    prefix: str, folders: Mapping[str, Path], models: Mapping[str, TransformersModel], tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    content = copied(folders["gemma3"], tmp_path, tensors=False)
    state = models["gemma3"].backbone.state_dict()
    save_file({prefix + name: value for name, value in state.items()}, tmp_path / "model.safetensors")
    again = model_of_choice("language", described(tmp_path, content))
    assert torch.equal(again.encode([SHORT]).hidden, models["gemma3"].encode([SHORT]).hidden)


def test_a_quantised_text_part_is_not_read_as_plain_numbers(
    folders: Mapping[str, Path], tmp_path: Path
) -> None:
    content = copied(folders["gemma3"], tmp_path)
    content["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    with pytest.raises(ModelError, match=r"cannot be loaded: .*(optimum|gptq)"):
        model_of_choice("language", described(tmp_path, content))


def saved(model: Any, folder: Path, template: str = "<s> $A </s>") -> str:
    model.save_pretrained(folder)
    byte_tokenizer(template).save_pretrained(folder)
    return str(folder)


@cache
def mixing() -> Any:
    """FNet mixes all tokens by a Fourier transform and knows no mask."""
    torch.manual_seed(0)
    return transformers.FNetModel(transformers.FNetConfig(**SIZES), add_pooling_layer=False)


def test_a_model_that_padding_would_change_reads_one_prompt_at_a_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = saved(mixing(), tmp_path)
    model = model_of_choice("language", {"source": source})
    assert model.reads_singly
    assert "prompts are read one at a time" in " ".join(capsys.readouterr().err.split())
    reading = ReadingSpec(layers=(1, -1))
    alone, beside = model.encode([SHORT], reading), model.encode([LONG, SHORT], reading)
    torch.testing.assert_close(beside.hidden[1, :, : alone.hidden.shape[2]], alone.hidden[0])
    ids = torch.tensor([model.tokenizer(SHORT)["input_ids"]])
    torch.testing.assert_close(alone.hidden[:, -1], mixing().eval()(ids).last_hidden_state)
    assert dict(model.encode_many([SHORT, LONG]))[SHORT].mask.shape == alone.mask.shape
    with pytest.raises(ModelError, match=r"changes the features .* set language.see_padding"):
        model_of_choice("language", {"source": source, "see_padding": "connector"})
    seen = model_of_choice("language", {"source": source, "see_padding": True})
    assert not seen.reads_singly


def test_positions_that_count_from_the_padding_id_end_earlier(tmp_path: Path) -> None:
    """MPNet has no file; its padding id is always 1, so that 12 positions are for 10 tokens."""
    settings = transformers.MPNetConfig(**{**SIZES, "max_position_embeddings": 12})
    source = saved(transformers.MPNetModel(settings, add_pooling_layer=False), tmp_path, "$A </s>")
    with pytest.raises(ModelError, match=r"max_tokens is 12, but .* has positions for 10 tokens"):
        model_of_choice("language", {"source": source})
    model = model_of_choice("language", {"source": source, "max_tokens": 10})
    assert model.encode(["x" * 500]).mask.shape == (1, 10)
    features = model.encode(["abc"], ReadingSpec(layers=(0,), context_free=True))
    torch.testing.assert_close(features.context_free, features.hidden)


def test_the_last_position_of_xlm_r_is_used(models: Mapping[str, TransformersModel]) -> None:
    model = models["xlm_roberta"]
    assert model.encode(["x" * 500]).mask.shape == (1, 199)
    features = model.encode(["abc"], ReadingSpec(layers=(0,), context_free=True))
    torch.testing.assert_close(features.context_free, features.hidden)


UNREADABLE: Mapping[str, tuple[dict[str, Any], str]] = {
    "speech": ({"model_type": "whisper"}, "is a 'whisper', an encoder-decoder, and no language family reads"),
    "encoder-decoder": ({"model_type": "bart"}, "is a 'bart', an encoder-decoder"),
    "images": ({"model_type": "vit"}, "is a 'vit', whose model is no class of AutoModel that reads tokens"),
    "unknown": ({"model_type": "qwen9"}, "is a 'qwen9', .* does not know: update transformers"),
    "own code": (
        {"model_type": "mine", "auto_map": {"AutoModel": "mine.Mine"}},
        "is a 'mine' .its own code, which is never run",
    ),
    "no type": ({"hidden_size": 8}, "states no model_type"),
    "wrong value": (
        {"model_type": "smollm3", "hidden_size": "wide"},
        "does not describe a 'smollm3' of transformers",
    ),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_an_architecture_that_cannot_be_read_is_named_with_the_reason(case: str, tmp_path: Path) -> None:
    description, message = UNREADABLE[case]
    with pytest.raises(ModelError, match=message):
        registry.detect_kind("language", described(tmp_path, description))


def test_a_model_with_a_file_of_its_own_keeps_its_kind(tmp_path: Path) -> None:
    """The generic path could read it too, and is not asked."""
    assert registry.detect_kind("language", described(tmp_path, {"model_type": "qwen3"})) == "qwen"
    assert AutoText.accepts(str(tmp_path))


def test_what_it_says_that_it_is_tested_with_is_tested(folders: Mapping[str, Path]) -> None:
    types = {
        json.loads((folders[name] / "config.json").read_text())["model_type"]
        for name, toy in TOYS.items()
        if toy.kind == "auto_model"
    }
    assert types == set(AutoText.models)
