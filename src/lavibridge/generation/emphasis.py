"""Weights in prompts: `a (red:1.3) cat` has more of red, `(red:0.5)` less.

    h_i <- e + w (h_i - e)        for each token of the weighted words; e is the empty prompt's mean feature

It is done on the language model's features, before the connector, so that it is the same for every model.
Weights multiply where they are nested; `\\(` and `\\)` are plain brackets, and so are those without a weight.

Interpolating from the empty prompt is how ComfyUI weighs words; there each token starts from the empty
prompt's token at its own place, which prompts of free length do not have.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lavibridge.core.errors import RecipeError

_PART = re.compile(r"\\([()\\])|(\()|:\s*([0-9]*\.?[0-9]+)\s*\)|(\))")
MOST = 10.0


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """A prompt without its signs, and the weight of each of its characters."""

    text: str
    weights: tuple[float, ...]

    @property
    def is_plain(self) -> bool:
        """Whether nothing is weighted."""
        return all(weight == 1 for weight in self.weights)


def parse(prompt: str) -> Weighted:
    """Read a prompt's weights; raises RecipeError for a weight above 10."""
    characters: list[str] = []
    weights: list[float] = []
    opened: list[int] = []
    place = 0
    for found in _PART.finditer(prompt):
        _add(characters, weights, prompt[place : found.start()])
        place = found.end()
        escaped, opening, weight, _ = found.groups()
        if escaped is not None:
            _add(characters, weights, escaped)
        elif opening is not None:
            opened.append(len(characters))
            _add(characters, weights, "(")
        elif weight is not None and opened:
            start = opened.pop()
            if float(weight) > MOST:
                raise RecipeError(f"the weight {weight} in '{prompt[:60]}' is above {MOST:g}: lower it")
            del characters[start], weights[start]
            weights[start:] = [each * float(weight) for each in weights[start:]]
        else:
            if opened:
                opened.pop()
            _add(characters, weights, found.group())
    _add(characters, weights, prompt[place:])
    return Weighted(text="".join(characters), weights=tuple(weights))


def token_weights(weighted: Weighted, spans: Sequence[tuple[int, int]]) -> Float[Tensor, " token"]:
    """The mean weight of each token's characters; 1 for tokens that stand for none of the prompt's."""
    found = [weighted.weights[start:end] for start, end in spans]
    return torch.tensor([sum(each) / len(each) if each else 1.0 for each in found])


def weigh(
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
