"""Medians with intervals, over the rounds of one process or over processes.

Rounds of one process agree better than processes do (docs/performance.md). A ratio for comparison with
another day therefore comes from several fresh processes, with an interval over them.
"""

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import get_context
from typing import Any

PROCESSES = 5


def interval(values: Sequence[float]) -> dict[str, Any]:
    """Return the median with a 95 % bootstrap interval."""
    chance = random.Random(0)
    drawn = sorted(statistics.median(chance.choices(values, k=len(values))) for _ in range(2000))
    return {"median": statistics.median(values), "low": drawn[49], "high": drawn[1949], "n": len(values)}


def fresh(measure: Callable[..., Any], *given: Any) -> Any:
    """Run ``measure`` in a process of its own and return its result."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, given)


def across(found: Sequence[Any]) -> Any:
    """Combine the results of several processes: each number becomes an interval with all values.

    Other values must be equal in all processes, or become a list.
    """
    first = found[0]
    if isinstance(first, Mapping):
        return {key: across([each[key] for each in found]) for key in first}
    if isinstance(first, int | float) and not isinstance(first, bool):
        return {**interval(found), "processes": list(found)}
    return first if all(each == first for each in found) else list(found)
