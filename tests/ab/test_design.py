"""Designs: pairs, sides and repeats balanced, whatever the numbers."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavibridge.ab.design import DESIGN_PARTS, PairedComparison, design_ab_study
from lavibridge.core.errors import RunError

KEYS = [(category, f"{category} {n}", seed) for category in "abc" for n in range(20) for seed in (1, 2)]


def spread(counts: list[int]) -> int:
    return max(counts) - min(counts)


def pairs_of(comparisons: list[PairedComparison]) -> Counter[frozenset[int]]:
    return Counter(frozenset((each.first, each.second)) for each in comparisons)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 5), st.integers(1, 60), st.integers(1, 10), st.integers(0, 2**32))
def test_every_design_is_balanced(runs: int, prompts: int, per_prompt: int, seed: int) -> None:
    pairs = [frozenset(pair) for pair in combinations(range(runs), 2)]
    per_prompt = min(per_prompt, len(pairs))
    rng = np.random.default_rng(seed)
    parts = design_ab_study(KEYS, runs, rng, prompts=prompts, per_prompt=per_prompt)
    every = [each for part in parts for each in part]
    once = [each for each in every if each.repeat_of is None]
    assert len({each.name for each in every}) == len(every)
    assert len({each.key[:2] for each in once}) == prompts
    assert set(Counter(each.key for each in once).values()) == {per_prompt}
    assert spread([pairs_of(once)[pair] for pair in pairs]) <= 1
    assert spread([len({e.key for e in once if e.key[0] == category}) for category in "abc"]) <= 1
    for category in "abc":
        mine = pairs_of([each for each in once if each.key[0] == category])
        assert spread([mine[pair] for pair in pairs]) <= 1
    for pair in pairs:
        sides = Counter(each.first for each in once if {each.first, each.second} == pair)
        assert spread([sides[run] for run in pair]) <= 1
    early = {each.name: each for part in parts[: DESIGN_PARTS // 2] for each in part}
    again = [each for each in every if each.repeat_of is not None]
    assert len(again) == len(once) // 10
    assert len({each.repeat_of for each in again}) == len(again)
    assert {each.name for each in again} <= {each.name for each in parts[-1]}
    for each in again:
        first = early[str(each.repeat_of)]
        assert (each.first, each.second, each.key) == (first.second, first.first, first.key)


def test_forty_prompts_unless_said_otherwise_or_all_there_are() -> None:
    for keys, expected in ((KEYS, 40), (KEYS[:10], 5)):
        parts = design_ab_study(keys, 2, np.random.default_rng(0))
        assert sum(each.repeat_of is None for part in parts for each in part) == expected


def test_what_cannot_be_had_is_said() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(RunError, match="share 60 prompts, fewer than the 61 requested"):
        design_ab_study(KEYS, 2, rng, prompts=61)
    with pytest.raises(RunError, match="3 runs make 3 pairs, fewer than the 4 per prompt"):
        design_ab_study(KEYS, 3, rng, per_prompt=4)
    with pytest.raises(RunError, match="20 comparisons allow at most 5 repeats, and 6"):
        design_ab_study(KEYS, 2, rng, prompts=20, repeats=6)
