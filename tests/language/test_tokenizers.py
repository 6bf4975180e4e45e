"""A tokenizer that disagrees with its model is mended, or refused by name before the first prompt."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from lavibridge.core import registry
from lavibridge.core.errors import ModelError
from lavibridge.language.hf import TransformersModel
from lavibridge.language.parts.byte_tokens import byte_tokenizer

PROMPT = "a red circle"


@cache
def toy(kind: str) -> TransformersModel:
    family = registry.load_kind("language", kind)
    return family(family.Config(source="random"))  # type: ignore[no-any-return]


def saved(kind: str, folder: Path, tokenizer: Any = None, **config: Any) -> Path:
    """A toy's folder with another tokenizer or other settings."""
    model = toy(kind)
    model.backbone.save_pretrained(folder)
    (tokenizer or model.tokenizer).save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


def load(kind: str, folder: Path, **options: Any) -> TransformersModel:
    family = registry.load_kind("language", kind)
    return family(family.Config(source=str(folder), **options))  # type: ignore[no-any-return]


def framed(template: str, *added: str, special: bool = True) -> Any:
    """The toys' tokenizer with another frame, and tokens that were added after training."""
    made = byte_tokenizer(template)
    made.add_tokens(list(added), special_tokens=special)
    return made


def without_a_word() -> Any:
    """A tokenizer of half of the words."""
    backend = json.loads(byte_tokenizer("<s> $A </s>").backend_tokenizer.to_str())
    words = {word: id for word, id in backend["model"]["vocab"].items() if id < 120 or word == "</s>"}
    words["</s>"] = 120
    backend["model"]["vocab"] = words
    backend["post_processor"]["special_tokens"]["</s>"]["ids"] = [120]
    backend["added_tokens"] = []
    from tokenizers import Tokenizer

    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(backend)),
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
    )


REFUSED: dict[str, tuple[str, Callable[[], Any], dict[str, Any], str]] = {
    "a word added after training": (
        "clip",
        lambda: framed("<s> $A </s>", "<dog>", special=False),
        {},
        r"has 1 words beyond the 259 rows of the model's table, such as '<dog>' \(259\)",
    ),
    "words of a larger model": (
        "llama",
        lambda: framed("<s> $A", *(f"word{number}" for number in range(40)), special=False),
        {},
        r"has 40 words beyond the 259 rows",
    ),
    "words of a smaller model": ("bert", without_a_word, {}, "has 121 words, the model's table 259 rows"),
    "no end for T5": ("t5", lambda: framed("$A"), {}, "0 special tokens before a prompt and 0 after"),
    "a begin for T5": (
        "t5",
        lambda: framed("<s> $A </s>"),
        {},
        "1 special tokens before a prompt and 1 after",
    ),
    "no end for CLIP": ("clip", lambda: framed("<s> $A"), {}, "1 special tokens before a prompt and 0 after"),
    "no begin for BERT": ("bert", lambda: framed("$A </s>"), {}, "trained with 1 and 1"),
    "two ends for BERT": ("bert", lambda: framed("<s> $A </s> </s>"), {}, "before a prompt and 2 after"),
    "an end that T5 was not trained with": (
        "t5",
        lambda: None,
        {"eos_token_id": 7},
        r"ends prompts with id 258, the model's config\.json says 7",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_another_model_s_tokenizer_is_refused_by_name(case: str, tmp_path: Path) -> None:
    kind, tokenizer, config, match = REFUSED[case]
    saved(kind, tmp_path, tokenizer(), **config)
    with pytest.raises(ModelError, match=match) as caught:
        load(kind, tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("kind", ["clip", "llama"])
def test_special_tokens_without_a_row_are_plain_text(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load(kind, saved(kind, tmp_path, framed(toy(kind).toy_template, "<image>")))
    assert "no vectors for 1 special tokens of its tokenizer, such as '<image>'" in " ".join(
        capsys.readouterr().err.split()
    )
    for prompt in (PROMPT, "an <image> of it"):
        made, plain = model.tokens([prompt, "a"]), toy(kind).tokens([prompt, "a"])
        assert torch.equal(made.ids, plain.ids)
        assert model.spans(prompt) == toy(kind).spans(prompt)
        torch.testing.assert_close(model.encode([prompt]).hidden, toy(kind).encode([prompt]).hidden)


def test_a_pad_without_a_row_gives_way_where_nobody_sees_it(tmp_path: Path) -> None:
    tokenizer = framed("$A", "[PAD]")
    tokenizer.pad_token = "[PAD]"
    saved("qwen", tmp_path, tokenizer)
    model = load("qwen", tmp_path)
    assert model.tokens.pad_id == 258
    features, expected = model.encode([PROMPT, "a"]), toy("qwen").encode([PROMPT, "a"])
    assert torch.equal(features.mask, expected.mask)
    real = features.mask[:, None, :, None]
    torch.testing.assert_close(features.hidden * real, expected.hidden * real)
    with pytest.raises(ModelError, match=r"pads with id 259, beyond the 259 rows"):
        load("qwen", tmp_path, see_padding=True)


@pytest.mark.parametrize("kind", ["t5", "bert"])
def test_a_pad_that_is_a_word_stays_a_word_in_prompts(kind: str, tmp_path: Path) -> None:
    tokenizer = framed(toy(kind).toy_template)
    tokenizer.pad_token = "e"
    model = load(kind, saved(kind, tmp_path, tokenizer))
    prompts = ["e e e", "a red circle, e"]
    features, expected = model.encode(prompts), toy(kind).encode(prompts)
    assert model.tokens.pad_id == tokenizer.convert_tokens_to_ids("e")
    assert torch.equal(features.mask, expected.mask)
    real = features.mask[:, None, :, None]
    torch.testing.assert_close(features.hidden * real, expected.hidden * real)


@pytest.mark.parametrize("config", [{}, {"eos_token_id": 2}, {"eos_token_id": 5}, {"eos_token_id": None}])
def test_clip_is_pooled_at_the_tokenizer_s_end_whatever_the_configuration_says(
    config: dict[str, Any], tmp_path: Path
) -> None:
    """At `eos_token_id: 2` the library takes the highest id, else the first that the configuration names."""
    model = load("clip", saved("clip", tmp_path, **config))
    for options in ({}, {"see_padding": True}):
        model = load("clip", tmp_path, **options)
        features = model.encode([PROMPT, "a much longer prompt, with a boat", ""])
        lengths = model.tokens([PROMPT, "a much longer prompt, with a boat", ""]).mask.sum(1)
        assert features.pooled is not None
        for row, length in enumerate(lengths.tolist()):
            torch.testing.assert_close(features.pooled[row], features.hidden[row, -1, length - 1])


def test_a_token_above_clip_s_end_is_not_taken_for_it(tmp_path: Path) -> None:
    """The table has grown with the tokenizer, as by textual inversion, and the configuration is old."""
    tokenizer = framed("<s> $A </s>", "<dog>", special=False)
    backbone = transformers.CLIPTextModel(
        type(toy("clip").backbone.config)(**toy("clip").toy, vocab_size=260)
    )
    backbone.config.eos_token_id = 2
    backbone.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = load("clip", tmp_path)
    features = model.encode(["a <dog> at home"])
    assert 259 in model.tokens(["a <dog> at home"]).ids[0].tolist()
    assert features.pooled is not None
    torch.testing.assert_close(features.pooled[0], features.hidden[0, -1, -1])
