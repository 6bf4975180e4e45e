"""Weights in prompts: `a (red:1.3) cat` has more of red, `(red:0.5)` less.

    h_i <- e + w (h_i - e)        for each token of the weighted words; e is the empty prompt's mean feature

Brackets are weights only where a person types a prompt to draw with and the caller says so; in captions,
suites and data they are text. A weight is a number from 0 to 10, and so is the product of nested ones; all
else is text: `(red:11)`, and a whole number behind a digit, as in `(16:9)` and `(at 9:05)`.
`\\(` and `\\)` are plain brackets in any case.

The features are the language model's, before the connector, so that weights work alike for every model.
Interpolating from the empty prompt is how ComfyUI weighs words; there each token starts from the empty
prompt's token at its own place, which prompts of free length do not have.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from lavibridge.core.errors import RecipeError
from lavibridge.core.unicode_text import is_valid_unicode

_WEIGHT = r":\s*([0-9]*\.[0-9]+)\s*\)|(?<![0-9])(?<![0-9]\s):\s*([0-9]+)\s*\)"
_PART = re.compile(rf"\\([()\\])|(\()|{_WEIGHT}|(\))")
_MOST = 10.0
"""The largest weight."""


@dataclass(frozen=True, kw_only=True)
class WeightedPrompt:
    """A prompt without its signs, and the weight of each of its characters."""

    text: str
    weights: tuple[float, ...]
    is_negative: bool = False
    """Whether guidance leads away from it: some pipelines encode negative prompts in another way."""

    @property
    def is_plain(self) -> bool:
        """Whether nothing is weighted."""
        return all(weight == 1 for weight in self.weights)


def read_emphasis(prompt: str, weights: bool, is_negative: bool = False) -> WeightedPrompt:
    """A prompt, its brackets as weights where they are ``weights``, as text where not.

    Raises RecipeError for what no tokenizer takes.
    """
    if not is_valid_unicode(prompt):
        raise RecipeError(f"the prompt {prompt[:60]!r} is not valid Unicode: write it anew")
    found = parse_emphasis(prompt) if weights else WeightedPrompt(text=prompt, weights=(1.0,) * len(prompt))
    return replace(found, is_negative=is_negative)


def parse_emphasis(prompt: str) -> WeightedPrompt:
    """A prompt with its weights read."""
    characters: list[str] = []
    weights: list[float] = []
    opened: list[int] = []
    place = 0
    for found in _PART.finditer(prompt):
        _add(characters, weights, prompt[place : found.start()])
        place = found.end()
        escaped, opening, decimal, whole, _ = found.groups()
        if escaped is not None:
            _add(characters, weights, escaped)
        elif opening is not None:
            opened.append(len(characters))
            _add(characters, weights, "(")
        else:
            start = opened.pop() if opened else len(characters)
            weight = float(decimal or whole or _MOST + 1)
            inner = [each * weight for each in weights[start + 1 :]]
            if start < len(characters) and max([weight, *inner]) <= _MOST:
                del characters[start]
                weights[start:] = inner
            else:
                _add(characters, weights, found.group())
    _add(characters, weights, prompt[place:])
    return WeightedPrompt(text="".join(characters), weights=tuple(weights))


def emphasis_of_tokens(weighted: WeightedPrompt, spans: Sequence[tuple[int, int]]) -> Float[Tensor, " token"]:
    """The mean weight of each token's characters; 1 for tokens that stand for none of the prompt's."""
    found = [weighted.weights[start:end] for start, end in spans]
    return torch.tensor([sum(each) / len(each) if each else 1.0 for each in found])


def apply_emphasis(
    hidden: Float[Tensor, "layer token width"],
    empty: Float[Tensor, "layer other width"],
    weights: Float[Tensor, " token"],
) -> Float[Tensor, "layer token width"]:
    """Features with the words' weights in them."""
    start = empty.mean(dim=1, keepdim=True)
    return start + weights.to(hidden)[None, :, None] * (hidden - start)


def _add(characters: list[str], weights: list[float], text: str) -> None:
    characters.extend(text)
    weights.extend([1.0] * len(text))
