"""Measures the ceiling: how much a language model's features know about words that no caption contains.

    plain      mean feature of `red` in "a red circle", "a red square", ...       one per colour and shape
    query      feature of `crimson` in "a crimson disc", "a crimson box", ...     one per phrase
    correct    if the nearest plain colour is red                                 cosine, mean removed

A connector trained on captions alone has seen `red` but never `crimson`. It can generalise only to words with
similar features, so this accuracy is a rough upper bound for it. Colours have 8 classes (chance 12.5 %),
shapes 6 (16.7 %). The interval is over words, because phrases of one word are not independent. Pairs of
colour and shape that all training withholds are excluded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from lavibridge.connectors.parts.read_out import ReadOutChoice, make_read_out
from lavibridge.core.contracts import ReadingSpec
from lavibridge.evaluation.stats import Estimate, estimate, wilson_interval
from lavibridge.language.base import LanguageModel
from lavibridge.world.caption_templates import with_article
from lavibridge.world.scene import COLORS, SHAPES, WITHHELD
from lavibridge.world.words import SYNONYMS

CEILING_CHANCE = {"color": 1 / len(COLORS), "shape": 1 / len(SHAPES)}
WordFeatures = Float[Tensor, "phrase layer width"]


@dataclass(frozen=True, kw_only=True)
class _Phrase:
    """A phrase of a colour word and a shape word, and the plain colour and shape they mean."""

    color: str
    shape: str
    words: Mapping[str, str]
    """The two words, by `color` and `shape`."""

    @property
    def text(self) -> str:
        """The phrase as a prompt."""
        return with_article(f"{self.words['color']} {self.words['shape']}")

    def place(self, what: str) -> tuple[int, int]:
        """Start and end characters of one of the two words."""
        end = len(self.text) if what == "shape" else len(self.text) - len(self.words["shape"]) - 1
        return end - len(self.words[what]), end


@dataclass(frozen=True, kw_only=True)
class LayerCeiling:
    """The fraction of phrases whose word is nearest to the correct plain word."""

    color: Estimate
    shape: Estimate
    words: Mapping[str, int]
    """Number of query words, by `color` and `shape`."""

    def record(self) -> dict[str, Any]:
        """The accuracies as JSON."""
        return {"color": self.color.record(), "shape": self.shape.record(), "words": dict(self.words)}


def measure_ceiling(language: LanguageModel, read: ReadOutChoice | None = None) -> dict[str, LayerCeiling]:
    """Measure the accuracy of each layer (`layer 0` is the embeddings), and of the connector's read-out.

    `read` selects the read-out; by default it is the model's own default.
    """
    layers = tuple(range(language.spec.layers))
    plain = [
        _phrase(color, shape, color, shape)
        for color in COLORS
        for shape in SHAPES
        if _is_trained(color, shape)
    ]
    queries = [
        _phrase(color, shape, hue, noun)
        for color in COLORS
        for shape in SHAPES
        if _is_trained(color, shape)
        for hue in SYNONYMS[color]
        for noun in SYNONYMS[shape]
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        chosen = make_read_out(read, language.spec)
    layer_ids = [layer % language.spec.layers for layer in chosen.layers]
    plain_features, query_features = (_features(language, each, layers) for each in (plain, queries))
    found: dict[str, dict[str, Estimate]] = {}
    for what in CEILING_CHANCE:
        both = plain_features[what], query_features[what]
        for layer in layers:
            one, other = (each[:, layer] for each in both)
            found.setdefault(f"layer {layer}", {})[what] = _accuracy(plain, queries, one, other, what)
        with torch.no_grad():
            one, other = (chosen(each[:, layer_ids, None])[:, 0] for each in both)
        found.setdefault("read", {})[what] = _accuracy(plain, queries, one, other, what)
    words = {what: len({phrase.words[what] for phrase in queries}) for what in CEILING_CHANCE}
    return {
        name: LayerCeiling(color=each["color"], shape=each["shape"], words=words)
        for name, each in found.items()
    }


def _phrase(color: str, shape: str, hue: str, noun: str) -> _Phrase:
    return _Phrase(color=color, shape=shape, words={"color": hue, "shape": noun})


def _is_trained(color: str, shape: str) -> bool:
    return (color, shape) not in WITHHELD


@torch.no_grad()
def _features(
    language: LanguageModel, phrases: Sequence[_Phrase], layers: tuple[int, ...]
) -> dict[str, WordFeatures]:
    """The mean feature over the tokens of every phrase's colour word and shape word."""
    by_text = {phrase.text: phrase for phrase in phrases}
    means: dict[str, dict[str, Tensor]] = {}
    for text, features in language.encode_many(list(by_text), ReadingSpec(layers=layers)):
        places = language.spans(text)
        for what in CEILING_CHANCE:
            first, end = by_text[text].place(what)
            tokens = [n for n, (begin, stop) in enumerate(places) if begin < end and stop > first]
            means.setdefault(text, {})[what] = features.hidden[0, :, tokens].mean(dim=1).cpu()
    return {what: torch.stack([means[phrase.text][what] for phrase in phrases]) for what in CEILING_CHANCE}


def _accuracy(
    plain: Sequence[_Phrase],
    queries: Sequence[_Phrase],
    plain_features: Float[Tensor, "plain width"],
    query_features: Float[Tensor, "query width"],
    what: str,
) -> Estimate:
    """How often the nearest plain word is the correct one."""
    answers = tuple(COLORS) if what == "color" else SHAPES
    meant = torch.tensor([answers.index(getattr(phrase, what)) for phrase in plain])
    middles = torch.stack([plain_features[meant == number].mean(dim=0) for number in range(len(answers))])
    ground = middles.mean(dim=0)
    nearness = (
        functional.normalize(query_features - ground, dim=-1)
        @ functional.normalize(middles - ground, dim=-1).T
    )
    scores: dict[str, list[float]] = {}
    for phrase, answer in zip(queries, nearness.argmax(dim=-1).tolist(), strict=True):
        scores.setdefault(phrase.words[what], []).append(float(answers[answer] == getattr(phrase, what)))
    found = estimate(scores)
    if found.low == found.high:  # all phrases alike: resampled words show no variance
        low, high = wilson_interval(round(found.mean * len(scores)), len(scores))
        return replace(found, low=low, high=high)
    return found
