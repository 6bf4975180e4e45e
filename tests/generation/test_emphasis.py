"""Weights in prompts: how they are read, and that they do what they say for every language model."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lavibridge import Bridge, BridgePipeline
from lavibridge.core import registry
from lavibridge.core.errors import RecipeError
from lavibridge.generation.emphasis import apply_emphasis, emphasis_of_tokens, parse_emphasis, read_emphasis

KINDS = registry.kinds("language")


@pytest.mark.parametrize(
    ("prompt", "text", "weighted"),
    [
        ("a red cat", "a red cat", {}),
        ("a (red:1.3) cat", "a red cat", {"red": 1.3}),
        ("a (red: 0.5 ) cat", "a red cat", {"red": 0.5}),
        ("a (small (red:2):0.6) cat", "a small red cat", {"small ": 0.6, "red": 1.2}),
        ("a (red) cat", "a (red) cat", {}),
        (r"a \(red:1.3\) cat", "a (red:1.3) cat", {}),
        ("at 10:30) (or so", "at 10:30) (or so", {}),
        ("((red:1.1)", "(red", {"red": 1.1}),
        ("a wall clock (showing 10:30)", "a wall clock (showing 10:30)", {}),
        ("a clock (at 9:05)", "a clock (at 9:05)", {}),
        ("(aspect ratio 16:9)", "(aspect ratio 16:9)", {}),
        ("(16 : 9)", "(16 : 9)", {}),
        ("(red:11)", "(red:11)", {}),
        ("(red:1e1)", "(red:1e1)", {}),
        ("(route 66:1.2)", "route 66", {"route 66": 1.2}),
        ("((red:4):2) cat", "red cat", {"red": 8}),
        ("((red:4):4) cat", "(red:4) cat", {"red": 4}),
        ("(a (red:11) cat:2)", "a (red:11) cat", {"a (red:11) cat": 2}),
        ("(:2)", "", {}),
    ],
)
def test_weights_are_read(prompt: str, text: str, weighted: dict[str, float]) -> None:
    found = parse_emphasis(prompt)
    assert found.text == text
    expected = [1.0] * len(text)
    for part, weight in weighted.items():
        start = text.index(part)
        expected[start : start + len(part)] = [weight] * len(part)
    assert found.weights == pytest.approx(tuple(expected))
    assert found.is_plain == (not weighted)


SIGNS = st.text(alphabet=st.sampled_from("a1 .:()\\\\")) | st.text()


@given(SIGNS)
def test_any_text_can_be_drawn_as_it_stands(text: str) -> None:
    assert read_emphasis(text, weights=False) == read_emphasis(
        re.sub(r"([()\\\\])", r"\\\1", text), weights=True
    )
    assert read_emphasis(text, weights=False).text == text


@given(SIGNS)
def test_no_weight_leaves_its_range(text: str) -> None:
    found = parse_emphasis(text)
    assert len(found.weights) == len(found.text)
    assert all(0 <= weight <= 10 for weight in found.weights)


def test_a_weight_moves_features_from_the_empty_prompt_s() -> None:
    hidden, empty = torch.randn(2, 3, 5), torch.randn(2, 4, 5)
    found = apply_emphasis(hidden, empty, torch.tensor([1.0, 0.0, 2.0]))
    start = empty.mean(1)
    torch.testing.assert_close(found[:, 0], hidden[:, 0])
    torch.testing.assert_close(found[:, 1], start)
    torch.testing.assert_close(found[:, 2], 2 * hidden[:, 2] - start)
    weights = emphasis_of_tokens(parse_emphasis("a (red:3) cat"), [(0, 0), (0, 1), (1, 5), (5, 9)])
    assert weights.tolist() == pytest.approx([1, 1, 2.5, 1])


@pytest.mark.parametrize("kind", KINDS)
def test_every_token_has_its_characters(kind: str) -> None:
    family = registry.load_kind("language", kind)
    model = family(family.Config(source="random"))
    prompt = "a red cat, and a naïve tree " * 20
    spans = model.spans(prompt)
    assert len(spans) == int(model.encode([prompt]).mask.sum())
    kept = sorted(place for place in spans if place != (0, 0))
    assert kept[0][0] == 0
    assert all(end - start >= 1 for start, end in kept)


def test_weights_change_pictures_and_one_is_none() -> None:
    bridge = Bridge.compose({"kind": "t5", "source": "random"}, {"kind": "sd", "source": "random"})
    with torch.no_grad():
        for value in bridge.connector.parameters():
            value *= 3

    def drawn(prompt: str, weights: bool = True) -> np.ndarray:
        return np.asarray(
            BridgePipeline(bridge)(prompt, num_inference_steps=2, seed=0, prompt_weighting=weights).images[0],
            int,
        )

    plain = drawn("a red cat")
    assert np.array_equal(drawn("a (red:1) cat"), plain)
    assert np.array_equal(drawn("(a red cat:1)"), plain)
    assert np.abs(drawn("a (red:3) cat") - plain).max() > 1
    text = drawn("a (red:3) cat", weights=False)
    assert np.array_equal(text, drawn(r"a \(red:3\) cat"))
    assert not np.array_equal(text, drawn("a (red:3) cat"))
    both = BridgePipeline(bridge)(
        ["a (red:3) cat", "a (red:3) cat and a boat"], num_inference_steps=2, seed=0, prompt_weighting=True
    ).images[0]
    assert np.abs(np.asarray(both, int) - drawn("a (red:3) cat")).max() <= 1


def test_connectors_that_ask_take_no_weights() -> None:
    bridge = Bridge.compose(
        {"kind": "llama", "source": "random"},
        {"kind": "sd", "source": "random"},
        {"kind": "query", "queries": 2, "blocks": 1},
        None,
        None,
    )
    for prompt, away in (("a (red:2) cat", ""), ("a cat", "(red:2)")):
        with pytest.raises(RecipeError, match="remove the weights"):
            BridgePipeline(bridge)(
                prompt, num_inference_steps=1, seed=0, negative_prompt=away, prompt_weighting=True
            )
        assert BridgePipeline(bridge)(prompt, num_inference_steps=1, seed=0, negative_prompt=away).images


def test_a_prompt_of_signs_only_is_empty() -> None:
    bridge = Bridge.compose({"kind": "t5", "source": "random"}, {"kind": "sd", "source": "random"})
    with pytest.raises(RecipeError, match="prompt 2 is empty"):
        BridgePipeline(bridge)(["a cat", "( :1.3)"], num_inference_steps=1, seed=0, prompt_weighting=True)
