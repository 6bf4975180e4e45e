"""How sure a figure is: medians with intervals, over rounds of one process or over processes.

Rounds of one process agree better than processes do (docs/performance.md), so a ratio that is compared with
one of another day is taken in several processes, each fresh, and its interval is over those.
"""

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import get_context
from typing import Any

PROCESSES = 5


def interval(values: Sequence[float]) -> dict[str, Any]:
    """Median with a 95 % bootstrap interval."""
    chance = random.Random(0)
    drawn = sorted(statistics.median(chance.choices(values, k=len(values))) for _ in range(2000))
    return {"median": statistics.median(values), "low": drawn[49], "high": drawn[1949], "n": len(values)}


def fresh(measure: Callable[..., Any], *given: Any) -> Any:
    """What ``measure`` returns in a process of its own."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, given)


def across(found: Sequence[Any]) -> Any:
    """The same result of several processes as one: a number becomes an interval over them, with all values.

    What is no number has to be the same in all, or stands as a list.
    """
    first = found[0]
    if isinstance(first, Mapping):
        return {key: across([each[key] for each in found]) for key in first}
    if isinstance(first, int | float) and not isinstance(first, bool):
        return {**interval(found), "processes": list(found)}
    return first if all(each == first for each in found) else list(found)
