"""A GGUF file gives the features that its weights give from safetensors, or is refused by name."""

import shutil
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from lavibridge import Bridge, BridgePipeline
from lavibridge.bridge.choices import model_of_choice
from lavibridge.core import registry
from lavibridge.core.errors import ModelError
from lavibridge.core.identity import source_identity
from lavibridge.core.packaged import PACKAGED
from lavibridge.language.hf import TransformersModel
from lavibridge.language.parts.byte_tokens import TOY_IDS, byte_tokenizer
from lavibridge.plan.meta_model import ModelPart, build_meta_bridge, model_parts
from lavibridge.plan.search import variants
from lavibridge.recipes.recipe import Recipe, load_recipe

gguf = pytest.importorskip("gguf", reason="needs the extra [gguf]")
from toy_gguf import WORDS, write_gguf  # noqa: E402 - it needs gguf

PROMPTS = ["a red circle", "a much longer prompt: a boat, a house and a tree", "a"]
BEGINS = {"tokenizer__ggml__add_bos_token": True}
PIECES = {"tokenizer": "t5"}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
LINEAR = {"rope_type": "linear", "factor": 8.0}
SCALED = {"gemma3__rope__scaling__type": "linear", "gemma3__rope__scaling__factor": 8.0}
Case = tuple[str, str, dict[str, Any], dict[str, Any]]
CASES: dict[str, Case] = {
    "llama": ("llama", "llama", {}, BEGINS),
    "qwen2": ("qwen", "qwen2", {}, {}),
    "qwen3": ("qwen", "qwen3", {"head_dim": 8}, {}),
    "gemma2": ("gemma", "gemma2", {"query_pre_attn_scalar": 16}, BEGINS),
    "gemma3": ("gemma", "gemma3", {"query_pre_attn_scalar": 16}, BEGINS),
    "llama 3.2": ("llama", "llama", {"rope_parameters": LLAMA3}, BEGINS),
    "gemma3 4b": ("gemma", "gemma3", {"query_pre_attn_scalar": 16, "rope_scaling": LINEAR}, BEGINS | SCALED),
    "t5 1.1": ("t5", "t5encoder", {"feed_forward_proj": "gated-gelu"}, PIECES),
    "t5": ("t5", "t5encoder", {"feed_forward_proj": "relu"}, PIECES),
    "umt5": ("t5", "t5encoder", {"feed_forward_proj": "gated-gelu"}, PIECES | {"general__name": "UMT5 toy"}),
}
"""Name -> kind, architecture in llama.cpp, settings beside the toy's, metadata beside the sizes."""
MODEL_TYPES = {"gemma3": "gemma3_text", "gemma3 4b": "gemma3_text", "llama 3.2": "llama", "t5 1.1": "t5"}


def toy_backbone(case: str) -> Any:
    """A toy of the class that reads the architecture, with weights of which no two are equal."""
    kind, _, settings, _ = CASES[case]
    family = registry.load_kind("language", kind)
    model = getattr(transformers, family.models[MODEL_TYPES.get(case, case)])
    ids = TOY_IDS if kind != "t5" else {"pad_token_id": 0, "eos_token_id": 1, "vocab_size": len(WORDS)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = model(model.config_class(**{**family.toy, **ids, **settings})).eval()
        for weights in made.parameters():
            if weights.ndim == 1:
                torch.nn.init.normal_(weights, mean=1.0, std=0.2)
    return made


def toy_file(folder: Path, case: str = "llama", name: str = "toy.gguf", **options: Any) -> Path:
    kind, architecture, _, metadata = CASES[case]
    found = byte_tokenizer("$A").get_vocab()
    words = WORDS if kind == "t5" else sorted(found, key=found.__getitem__)
    return write_gguf(toy_backbone(case), folder / name, architecture, words, **{**metadata, **options})


def load(source: Path | str, **options: Any) -> TransformersModel:
    found: TransformersModel = model_of_choice("language", {"source": str(source), **options})
    return found


def language_part(recipe: Recipe) -> ModelPart:
    """The language model in the plan of a recipe."""
    return next(each for each in model_parts(build_meta_bridge(recipe)) if each.name == "language model")


@pytest.mark.parametrize("case", CASES)
def test_features_are_those_of_the_same_weights_in_safetensors(case: str, tmp_path: Path) -> None:
    kind = CASES[case][0]
    model = load(toy_file(tmp_path, case))
    assert registry.kind_of("language", model) == kind
    folder = tmp_path / "folder"
    toy_backbone(case).save_pretrained(folder)
    # Of word pieces there is no toy but the file's own.
    known = model.tokenizer if kind == "t5" else byte_tokenizer(type(model).toy_template)
    known.save_pretrained(folder)
    expected = load(folder)
    for prompts in (PROMPTS, [""]):
        assert torch.equal(model.tokens(prompts).ids, expected.tokens(prompts).ids)
        features, right = model.encode(prompts), expected.encode(prompts)
        assert torch.equal(features.mask, right.mask)
        torch.testing.assert_close(features.hidden, right.hidden, atol=1e-5, rtol=1e-5)
    assert model.spec == expected.spec
    meta = model_of_choice("language", {"source": str(tmp_path / "toy.gguf")}, torch.device("meta"))
    assert {name: each.shape for name, each in meta.backbone.named_parameters()} == {
        name: each.shape for name, each in expected.backbone.named_parameters()
    }


def test_llama_2_begins_prompts_and_pads_as_it_learned(tmp_path: Path) -> None:
    """Its converter writes no `add_bos_token`, and no padding token."""
    words = ["<unk>", "<s>", "</s>", "\u2581", *"abcdefghijklmnopqrstuvwxyz", "\u2581a"]
    family = registry.load_kind("language", "llama")
    ids = {"pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": len(words)}
    made = transformers.LlamaModel(transformers.LlamaConfig(**{**family.toy, **ids}))
    model = load(write_gguf(made, tmp_path / "toy.gguf", "llama", words, tokenizer="llama"))
    found = model.tokens(["a cab", "a"])
    assert found.ids.tolist() == [
        [1, words.index("\u2581a"), 3, 6, 4, 5],
        [1, words.index("\u2581a"), 0, 0, 0, 0],
    ]
    assert model.spans("a cab") == [(0, 0), (0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]


def test_quantised_weights_are_near_the_whole_ones_in_a_smaller_file(tmp_path: Path) -> None:
    whole = toy_file(tmp_path)
    small = toy_file(tmp_path, name="small.GGUF", kind=gguf.GGMLQuantizationType.Q8_0)
    assert small.stat().st_size < 0.6 * whole.stat().st_size
    found, right = (load(each).encode(PROMPTS).hidden for each in (small, whole))
    assert 0 < (found - right).norm() < 0.05 * right.norm()
    half = load(small, dtype="bfloat16")
    assert {each.dtype for each in half.backbone.parameters()} == {torch.bfloat16}


def test_a_bridge_learns_from_a_file_and_finds_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    bridge = Bridge.compose(
        "toy.gguf", {"kind": "sd", "source": "random"}, "linear", language_lora={"rank": 2}
    )
    image = BridgePipeline(bridge)("a red circle", seed=0, num_inference_steps=2).images[0]
    bridge.save_pretrained("saved")
    monkeypatch.chdir("/")
    loaded = BridgePipeline.from_pretrained(tmp_path / "saved")
    again = loaded("a red circle", seed=0, num_inference_steps=2).images[0]
    assert again.tobytes() == image.tobytes()


def test_a_plan_reads_the_header_only(tmp_path: Path) -> None:
    file = toy_file(tmp_path)
    recipe = load_recipe("quickstart", [f"language={{source: {file}, kind: llama}}", "connector=lavi"])
    part = language_part(recipe)
    assert part.frozen == sum(each.numel() for each in toy_backbone("llama").parameters())
    assert part.bytes == 4 * (part.frozen + part.trained)
    assert all("quantize" not in changes.get("language", {}) for changes in variants(recipe))


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    file = toy_file(tmp_path)
    first = source_identity(str(file))
    assert source_identity(str(tmp_path)) == first
    moved = file.rename(tmp_path / "moved.gguf")
    assert source_identity(str(moved)) == first
    content = bytearray(moved.read_bytes())
    content[-1] ^= 1
    moved.write_bytes(content)
    assert source_identity(str(moved)) != first


def test_a_folder_with_one_file_names_it(tmp_path: Path) -> None:
    file = toy_file(tmp_path)
    (tmp_path / "README.md").write_text("about it")
    assert torch.equal(load(tmp_path).encode(PROMPTS).hidden, load(file).encode(PROMPTS).hidden)
    shutil.copy(file, tmp_path / "other.gguf")
    with pytest.raises(ModelError, match=r"has 2 GGUF files \(other.gguf, toy.gguf\): choose one"):
        registry.detect_kind("language", str(tmp_path))


def test_a_file_in_the_working_folder_is_not_taken_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    file = toy_file(tmp_path)
    expected = load(file).encode(PROMPTS).hidden
    toy_file(tmp_path / "here", "qwen2")
    monkeypatch.chdir(tmp_path / "here")
    torch.testing.assert_close(load(file).encode(PROMPTS).hidden, expected)


def test_a_file_of_the_hub_is_read_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = tmp_path / "models--owner--name" / "snapshots" / ("0" * 40)
    commit.mkdir(parents=True)
    (tmp_path / "models--owner--name" / "refs").mkdir()
    (tmp_path / "models--owner--name" / "refs" / "main").write_text("0" * 40)
    file = toy_file(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    source = "owner/name/toy.gguf"
    assert torch.equal(load(source).encode(PROMPTS).hidden, load(file).encode(PROMPTS).hidden)
    assert source_identity(source) == source_identity(str(file))
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set"):
        load("owner/name/other.gguf")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a part of a model": ({"split__count": 3}, r"is one of 3 parts of a model: join them"),
    "scaled positions": ({"llama__rope__scaling__type": "yarn"}, "scales its rotary positions"),
    "an architecture nobody reads": (
        {"general__architecture": "bert"},
        r"has the architecture 'bert', which transformers does not read from GGUF \(it reads .*llama, .*t5",
    ),
    "a family that we have not": (
        {"general__architecture": "phi3"},
        r"is a GGUF file of a 'phi3', which no language family reads from GGUF",
    ),
    "a denoiser": ({"general__architecture": "flux"}, "holds the image or video model 'flux'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_another_model_is_refused_by_name(case: str, tmp_path: Path) -> None:
    metadata, match = REFUSED[case]
    file = toy_file(tmp_path, **metadata)
    with pytest.raises(ModelError, match=match) as caught:
        load(file)
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (lambda whole: whole[:-40], r"is incomplete: it has \d+ of \d+ bytes"),
        (lambda whole: whole[:2000], "is damaged or incomplete: its header cannot be read"),
        (lambda whole: whole[:24] + b"\xff" * 200 + whole[224:], "is damaged or incomplete"),
        (lambda whole: whole[:4], "is damaged or incomplete"),
        (lambda whole: b"PK\x03\x04" + whole[4:], "is not a GGUF file"),
        (lambda whole: b"", "is not a GGUF file"),
        (
            lambda whole: whole[:4] + struct.pack("<I", 1) + whole[8:],
            "is GGUF of version 1, and versions 2 and 3",
        ),
    ],
    ids=["tail", "header", "noise", "magic", "another format", "empty", "version"],
)
def test_a_damaged_file_is_refused(content: Any, match: str, tmp_path: Path) -> None:
    file = toy_file(tmp_path)
    file.write_bytes(content(file.read_bytes()))
    with pytest.raises(ModelError, match=match) as caught:
        load(file)
    assert str(file) in str(caught.value)


def test_missing_weights_and_another_kind_are_refused(tmp_path: Path) -> None:
    file = toy_file(tmp_path)
    content = file.read_bytes().replace(b"blk.1.ffn_gate.weight", b"blk.1.ffn_grate.weigh")
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r"lacks 1 weights, among them layers\.1\.mlp\.gate_proj\.weight"):
        load(file)
    with pytest.raises(ModelError, match="holds a model of type 'llama', this kind reads bert"):
        load(file, kind="bert")


def test_what_cannot_be_read_from_a_file_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = toy_file(tmp_path)
    for choice in (str(file), {"kind": "sd", "source": str(file)}):
        with pytest.raises(ModelError, match="holds the language model 'llama', no image model"):
            model_of_choice("vision", choice)
    with pytest.raises(ModelError, match=r"there is no GGUF file 'gone/toy\.gguf'"):
        load("gone/toy.gguf")
    monkeypatch.setitem(sys.modules, "bitsandbytes", pytest)
    monkeypatch.setitem(sys.modules, "gguf", None)
    other = Path(shutil.copy(file, tmp_path / "other.gguf"))
    with pytest.raises(ModelError, match=r"takes the package gguf to read: pip install 'lavibridge\[gguf\]'"):
        load(other)


smollm2 = pytest.mark.skipif(PACKAGED["smollm2"].path() is None, reason="needs `make smollm2`")


@pytest.mark.slow
@smollm2
def test_smollm2_is_read_as_it_is() -> None:
    """The real SmolLM2-135M-Instruct: sizes, finite features, padding, and a continuation that it knows."""
    model = load("smollm2", max_tokens=32)
    assert registry.kind_of("language", model) == "llama"
    assert (model.spec.width, model.spec.layers) == (576, 31)
    prompts = ["The capital of France is", "a red circle to the left of a blue square, 12 times", ""]
    together, alone = model.encode(prompts), model.encode(prompts[:1])
    assert bool(torch.isfinite(together.hidden).all())
    tokens = alone.mask.shape[1]
    torch.testing.assert_close(together.hidden[0, :, :tokens], alone.hidden[0], atol=1e-4, rtol=1e-4)
    table = model.backbone.get_input_embeddings().weight  # the head is the table: words are tied
    best = (alone.hidden[0, -1, -1] @ table.T).argmax()
    assert model.tokenizer.decode([int(best)]).strip() == "Paris"


@pytest.mark.slow
@smollm2
def test_smollm2_draws_through_a_bridge_and_is_planned() -> None:
    bridge = Bridge.compose("smollm2", "mini-sd", "lavi", language_lora={"rank": 2})
    assert BridgePipeline(bridge)("a red circle", seed=0, num_inference_steps=2).images
    recipe = load_recipe("minilm_mini-sd_lavi", ["language={source: smollm2, kind: llama}"])
    part = language_part(recipe)
    assert part.frozen == sum(each.numel() for each in load("smollm2").backbone.parameters())
