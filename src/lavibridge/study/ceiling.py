"""The ceiling: what a language model's own word features know of words that no caption has.

    plain      mean feature of `red` in "a red circle", "a red square", ...       one for each colour, shape
    asked      feature of `crimson` in "a crimson disc", "a crimson box", ...     one for each phrase
    right      when, of all colours, the plain one that lies nearest is red       cosine, from their mean

A connector that is trained on captions alone has heard `red` and never `crimson`: it can carry over what lies
near in the features, so this is about what it can reach without other help. Colours have 8 answers (chance
12.5 %), shapes 6 (16.7 %). The interval is over words, whose phrases are not independent. Pairs of colour and
shape that are withheld from all training are left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from lavibridge.connectors.parts.read_out import ReadOutChoice, read_out
from lavibridge.core.contracts import Reading
from lavibridge.evaluation.stats import Estimate, estimate, wilson
from lavibridge.language.base import LanguageModel
from lavibridge.world.caption_templates import with_article
from lavibridge.world.scene import COLORS, SHAPES, WITHHELD
from lavibridge.world.words import SYNONYMS

BATCH = 64
CHANCE = {"color": 1 / len(COLORS), "shape": 1 / len(SHAPES)}
Features = Float[Tensor, "phrase layer width"]


@dataclass(frozen=True, kw_only=True)
class Phrase:
    """A colour word and a shape word, and what they stand for."""

    color: str
    shape: str
    said: Mapping[str, str]
    """The two words themselves, by `color` and `shape`."""

    @property
    def text(self) -> str:
        """As a prompt."""
        return with_article(f"{self.said['color']} {self.said['shape']}")

    def place(self, what: str) -> tuple[int, int]:
        """The characters of one of the two words."""
        end = len(self.text) if what == "shape" else len(self.text) - len(self.said["shape"]) - 1
        return end - len(self.said[what]), end


@dataclass(frozen=True, kw_only=True)
class LayerAccuracy:
    """The share of phrases whose word lies nearest to the right one."""

    color: Estimate
    shape: Estimate
    words: Mapping[str, int]
    """Words asked about, by `color` and `shape`."""

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {"color": self.color.record(), "shape": self.shape.record(), "words": dict(self.words)}


def measure_ceiling(language: LanguageModel, read: ReadOutChoice | None = None) -> dict[str, LayerAccuracy]:
    """What each layer knows, by `layer 0` (the embeddings) and so on; and `read`, what a connector reads.

    `read` is the connector's read-out as it is before training; by default the one that suits the model.
    """
    layers = tuple(range(language.spec.layers))
    plain = [
        _phrase(color, shape, color, shape) for color in COLORS for shape in SHAPES if _met(color, shape)
    ]
    asked = [
        _phrase(color, shape, hue, noun)
        for color in COLORS
        for shape in SHAPES
        if _met(color, shape)
        for hue in SYNONYMS[color]
        for noun in SYNONYMS[shape]
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        chosen = read_out(read, language.spec)
    wanted = [layer % language.spec.layers for layer in chosen.layers]
    plain_features, asked_features = (_features(language, each, layers) for each in (plain, asked))
    found: dict[str, dict[str, Estimate]] = {}
    for what in CHANCE:
        both = plain_features[what], asked_features[what]
        for layer in layers:
            one, other = (each[:, layer] for each in both)
            found.setdefault(f"layer {layer}", {})[what] = _judged(plain, asked, one, other, what)
        with torch.no_grad():
            one, other = (chosen(each[:, wanted, None])[:, 0] for each in both)
        found.setdefault("read", {})[what] = _judged(plain, asked, one, other, what)
    words = {what: len({phrase.said[what] for phrase in asked}) for what in CHANCE}
    return {
        name: LayerAccuracy(color=each["color"], shape=each["shape"], words=words)
        for name, each in found.items()
    }


def _phrase(color: str, shape: str, hue: str, noun: str) -> Phrase:
    return Phrase(color=color, shape=shape, said={"color": hue, "shape": noun})


def _met(color: str, shape: str) -> bool:
    return (color, shape) not in WITHHELD


@torch.no_grad()
def _features(
    language: LanguageModel, phrases: Sequence[Phrase], layers: tuple[int, ...]
) -> dict[str, Features]:
    """The mean over a word's tokens, of the colour and of the shape of every phrase."""
    parts: dict[str, list[Tensor]] = {what: [] for what in CHANCE}
    for start in range(0, len(phrases), BATCH):
        some = phrases[start : start + BATCH]
        hidden = language.encode([phrase.text for phrase in some], Reading(layers=layers)).hidden
        for row, phrase in zip(hidden, some, strict=True):
            places = language.spans(phrase.text)
            for what, found in parts.items():
                first, end = phrase.place(what)
                tokens = [n for n, (begin, stop) in enumerate(places) if begin < end and stop > first]
                found.append(row[:, tokens].mean(dim=1).cpu())
    return {what: torch.stack(found) for what, found in parts.items()}


def _judged(
    plain: Sequence[Phrase],
    asked: Sequence[Phrase],
    plain_features: Float[Tensor, "plain width"],
    asked_features: Float[Tensor, "asked width"],
    what: str,
) -> Estimate:
    """How often the nearest plain word is the right one."""
    answers = tuple(COLORS) if what == "color" else SHAPES
    meant = torch.tensor([answers.index(getattr(phrase, what)) for phrase in plain])
    middles = torch.stack([plain_features[meant == number].mean(dim=0) for number in range(len(answers))])
    ground = middles.mean(dim=0)
    nearness = (
        functional.normalize(asked_features - ground, dim=-1)
        @ functional.normalize(middles - ground, dim=-1).T
    )
    scores: dict[str, list[float]] = {}
    for phrase, answer in zip(asked, nearness.argmax(dim=-1).tolist(), strict=True):
        scores.setdefault(phrase.said[what], []).append(float(answers[answer] == getattr(phrase, what)))
    found = estimate(scores)
    if found.low == found.high:  # every phrase alike, where words drawn again show nothing
        low, high = wilson(round(found.mean * len(scores)), len(scores))
        return replace(found, low=low, high=high)
    return found
