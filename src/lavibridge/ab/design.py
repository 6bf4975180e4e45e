"""Designs a blind study: which prompts, which pairs of runs, which sides, repeats and order.

    prompts   drawn at random, balanced over categories
    pairs     assigned to prompts in turn: each pair of runs equally often (+-1), also within a category
    sides     each run of a pair is first in half of their comparisons (+-1)
    parts     quarters; a rater's page shuffles within each. The last repeats comparisons of the first two
              with swapped sides, so that at least a quarter of the study lies between

One seed determines everything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TypeVar

import numpy as np

from lavibridge.core.errors import RunError
from lavibridge.evaluation.records import RecordKey

Thing = TypeVar("Thing")
DESIGN_PARTS = 4
_DEFAULT_PROMPTS = 40
"""Default number of prompts; fewer if there are fewer."""


@dataclass(frozen=True, kw_only=True)
class PairedComparison:
    """Two runs' pictures of one prompt and seed."""

    name: str
    """A random name that reveals nothing."""
    key: RecordKey
    first: int
    second: int
    repeat_of: str | None = None


AbDesign = tuple[tuple[PairedComparison, ...], ...]
"""The parts of a study."""


def design_ab_study(
    keys: Sequence[RecordKey],
    runs: int,
    rng: np.random.Generator,
    *,
    prompts: int | None = None,
    per_prompt: int = 1,
    repeats: int | None = None,
) -> AbDesign:
    """The parts of a study of `prompts` prompts, each with `per_prompt` pairs of runs.

    Defaults to DEFAULT_PROMPTS prompts and one repeat per ten comparisons. Raises RunError for more prompts,
    pairs or repeats than there are.
    """
    pairs = list(combinations(range(runs), 2))
    if per_prompt > len(pairs):
        raise RunError(
            f"{runs} runs make {len(pairs)} pairs, fewer than the {per_prompt} per prompt requested"
        )
    chosen = _choose(keys, prompts, rng)
    order = [pairs[place] for place in rng.permutation(len(pairs))]
    dealt = [
        (key, order[(place * per_prompt + step) % len(order)])
        for place, key in enumerate(chosen)
        for step in range(per_prompt)
    ]
    count = len(dealt) // 10 if repeats is None else repeats
    most = len(dealt) // DESIGN_PARTS
    if count > most:
        raise RunError(
            f"{len(dealt)} comparisons allow at most {most} repeats, and {count} were requested: give "
            "fewer --repeats or more --prompts"
        )
    names = _names(len(dealt) + count, rng)
    parts = _parts(_sided(dealt, names, rng), rng)
    early = _mixed([*parts[0], *parts[1]], rng)
    again = [
        replace(each, name=name, first=each.second, second=each.first, repeat_of=each.name)
        for each, name in zip(early[:count], names[len(dealt) :], strict=True)
    ]
    return (*(tuple(part) for part in parts[:-1]), tuple(_shuffled([*parts[-1], *again], rng)))


def _choose(keys: Sequence[RecordKey], prompts: int | None, rng: np.random.Generator) -> list[RecordKey]:
    """One seed of each chosen prompt, category by category."""
    by_category: dict[str, dict[str, list[RecordKey]]] = {}
    for key in keys:
        by_category.setdefault(key[0], {}).setdefault(key[1], []).append(key)
    there = sum(map(len, by_category.values()))
    if prompts is not None and prompts > there:
        raise RunError(
            f"the runs share {there} prompts, fewer than the {prompts} requested: give fewer --prompts"
        )
    left = min(prompts or _DEFAULT_PROMPTS, there)
    shares = _shares({name: len(each) for name, each in by_category.items()}, left, rng)
    chosen = []
    for name, share in shares.items():
        noises = list(by_category[name].values())
        for place in rng.permutation(len(noises))[:share]:
            chosen.append(noises[place][int(rng.integers(len(noises[place])))])
    return chosen


def _shares(sizes: Mapping[str, int], total: int, rng: np.random.Generator) -> dict[str, int]:
    """Prompts per category: equal shares as far as possible, the remainder at random."""
    shares = dict.fromkeys(sizes, 0)
    while sum(shares.values()) < total:
        open_ones = [name for name in shares if shares[name] < sizes[name]]
        for name in _shuffled(open_ones, rng)[: total - sum(shares.values())]:
            shares[name] += 1
    return shares


def _sided(
    dealt: Sequence[tuple[RecordKey, tuple[int, int]]], names: Sequence[str], rng: np.random.Generator
) -> list[PairedComparison]:
    """Assign sides to the comparisons, pair by pair."""
    found = []
    for pair in sorted({pair for _, pair in dealt}):
        mine = [place for place, (_, each) in enumerate(dealt) if each == pair]
        turn = int(rng.integers(2))
        for number, place in enumerate(_shuffled(mine, rng)):
            first, second = pair if (number + turn) % 2 else pair[::-1]
            found.append(PairedComparison(name=names[place], key=dealt[place][0], first=first, second=second))
    return found


def _parts(comparisons: Sequence[PairedComparison], rng: np.random.Generator) -> list[list[PairedComparison]]:
    """Split in turn, so that each part has its share of every pair."""
    return [_shuffled(comparisons[part::DESIGN_PARTS], rng) for part in range(DESIGN_PARTS)]


def _mixed(comparisons: Sequence[PairedComparison], rng: np.random.Generator) -> list[PairedComparison]:
    """Interleave the comparisons: one of each pair of runs, then the next of each."""
    seen: dict[frozenset[int], int] = {}
    turns = []
    for each in _shuffled(comparisons, rng):
        pair = frozenset((each.first, each.second))
        seen[pair] = seen.get(pair, 0) + 1
        turns.append((seen[pair], each))
    return [each for _, each in sorted(turns, key=lambda turn: turn[0])]


def _names(count: int, rng: np.random.Generator) -> list[str]:
    """Unique random names."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[rng.bytes(4).hex()] = None
    return list(found)


def _shuffled(things: Sequence[Thing], rng: np.random.Generator) -> list[Thing]:
    return [things[place] for place in rng.permutation(len(things))]
