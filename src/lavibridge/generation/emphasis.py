"""Word weights in prompts: `a (red:1.3) cat` emphasises red, `a (red:0.5) cat` attenuates it.

    h_i <- e + w (h_i - e)        for each token of the weighted words; e is the empty prompt's mean feature

Brackets are weights only in prompts for generation, and only if the caller asks for it. In captions, suites
and data they are text. A weight is a number from 0 to 10; the product of nested weights has the same range.
Everything else is text: `(red:11)`, and a whole number after a digit, as in `(16:9)` and `(at 9:05)`.
`\\(` and `\\)` always mean plain brackets.

Weights scale the language model's features, before the connector, so that they work alike for every model.
ComfyUI also interpolates from the empty prompt. There each token starts from the empty prompt's token at
the same position; the language models here do not pad the empty prompt, so its mean takes that place.
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
    """A prompt without the syntax of its weights, and the weight of each of its characters."""

    text: str
    weights: tuple[float, ...]
    is_negative: bool = False
    """Whether it is a negative prompt, which some pipelines encode in another way."""

    @property
    def is_plain(self) -> bool:
        """Whether all weights are 1."""
        return all(weight == 1 for weight in self.weights)


def read_emphasis(prompt: str, weights: bool, is_negative: bool = False) -> WeightedPrompt:
    """Read a prompt; brackets are weights if ``weights`` is True, and text otherwise.

    Raises RecipeError if the prompt is not valid Unicode, which no tokenizer accepts.
    """
    if not is_valid_unicode(prompt):
        raise RecipeError(f"the prompt {prompt[:60]!r} is not valid Unicode: type it again")
    found = parse_emphasis(prompt) if weights else WeightedPrompt(text=prompt, weights=(1.0,) * len(prompt))
    return replace(found, is_negative=is_negative)


def parse_emphasis(prompt: str) -> WeightedPrompt:
    """Parse the weights of a prompt."""
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
    """The mean weight of each token's characters; 1 for tokens without characters, such as end of text."""
    found = [weighted.weights[start:end] for start, end in spans]
    return torch.tensor([sum(each) / len(each) if each else 1.0 for each in found])


def apply_emphasis(
    hidden: Float[Tensor, "layer token width"],
    empty: Float[Tensor, "layer other width"],
    weights: Float[Tensor, " token"],
) -> Float[Tensor, "layer token width"]:
    """Move each token's features from the mean of ``empty``, in proportion to the token's weight."""
    start = empty.mean(dim=1, keepdim=True)
    return start + weights.to(hidden)[None, :, None] * (hidden - start)


def _add(characters: list[str], weights: list[float], text: str) -> None:
    characters.extend(text)
    weights.extend([1.0] * len(text))
