"""Soft-TIFA: an image-text model's probability of the correct answer to each question about a picture.

    s(i) = the probability of the correct answer to question i, summed over its spellings
    AM   = mean of s            the share of correct parts, also by skill
    GM   = (product of s)^(1/n) whether everything is correct: one certainly wrong part makes it 0

Kamath et al. 2025, GenEval 2, arXiv 2512.16853.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

_DIGITS = {
    "zero": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
}


@dataclass(frozen=True, kw_only=True)
class TifaAtom:
    """A question about a picture, its correct answer, and the skill that it tests."""

    question: str
    answer: str
    skill: str


@dataclass(frozen=True, kw_only=True)
class TifaAtoms:
    """The questions of a prompt."""

    atoms: tuple[TifaAtom, ...]


def tifa_spellings(answer: str) -> tuple[str, ...]:
    """Spellings of an answer: lower case or capitalised, with or without a leading blank, in digits too."""
    word = answer.strip().lower()
    forms = [word, word.capitalize(), *([_DIGITS[word]] if word in _DIGITS else [])]
    return tuple(blank + form for form in forms for blank in ("", " "))


def tifa_arithmetic_mean(values: Sequence[float]) -> float:
    """The mean of at least one value."""
    return math.fsum(values) / len(values)


def tifa_geometric_mean(values: Sequence[float]) -> float:
    """The n-th root of the product of n values, 0 where one is 0; at least one value."""
    if min(values) <= 0:
        return 0.0
    return math.exp(math.fsum(math.log(value) for value in values) / len(values))
