"""Weights in prompts: how they are read, and that they do what they say for every language model."""

import numpy as np
import pytest
import torch

from lavibridge import Bridge
from lavibridge.core import registry
from lavibridge.core.errors import RecipeError
from lavibridge.generation.emphasis import parse, token_weights, weigh

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
    ],
)
def test_weights_are_read(prompt: str, text: str, weighted: dict[str, float]) -> None:
    found = parse(prompt)
    assert found.text == text
    expected = [1.0] * len(text)
    for part, weight in weighted.items():
        start = text.index(part)
        expected[start : start + len(part)] = [weight] * len(part)
    assert found.weights == pytest.approx(tuple(expected))
    assert found.is_plain == (not weighted)


def test_a_weight_beyond_all_measure_is_refused() -> None:
    with pytest.raises(RecipeError, match="above 10"):
        parse("(red:11)")


def test_a_weight_moves_features_from_the_empty_prompt_s() -> None:
    hidden, empty = torch.randn(2, 3, 5), torch.randn(2, 4, 5)
    found = weigh(hidden, empty, torch.tensor([1.0, 0.0, 2.0]))
    start = empty.mean(1)
    torch.testing.assert_close(found[:, 0], hidden[:, 0])
    torch.testing.assert_close(found[:, 1], start)
    torch.testing.assert_close(found[:, 2], 2 * hidden[:, 2] - start)
    weights = token_weights(parse("a (red:3) cat"), [(0, 0), (0, 1), (1, 5), (5, 9)])
    assert weights.tolist() == pytest.approx([1, 1, 2.5, 1])


@pytest.mark.parametrize("kind", KINDS)
def test_every_token_has_its_characters(kind: str) -> None:
    family = registry.load("language", kind)
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

    def drawn(prompt: str) -> np.ndarray:
        return np.asarray(bridge.generate(prompt, steps=2)[0], int)

    plain = drawn("a red cat")
    assert np.array_equal(drawn("a (red:1) cat"), plain)
    assert np.array_equal(drawn("(a red cat:1)"), plain)
    assert np.abs(drawn("a (red:3) cat") - plain).max() > 1
    both = bridge.generate(["a (red:3) cat", "a (red:3) cat and a boat"], steps=2)[0]
    assert np.abs(np.asarray(both, int) - drawn("a (red:3) cat")).max() <= 1


def test_connectors_that_ask_take_no_weights() -> None:
    bridge = Bridge.compose(
        {"kind": "llama", "source": "random"},
        {"kind": "sd", "source": "random"},
        {"kind": "query", "queries": 2, "blocks": 1},
        None,
        None,
    )
    with pytest.raises(RecipeError, match="leave them out"):
        bridge.generate("a (red:2) cat", steps=1)
