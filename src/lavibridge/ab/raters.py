"""Describes the raters: number of answers, speed, ties, side bias, and test-retest reliability.

A repeat shows the same two pictures with swapped sides; the same answer means the same picture.
"""

from collections.abc import Sequence
from statistics import median
from typing import Any

from lavibridge.ab.votes import UnblindedVote
from lavibridge.evaluation.stats import wilson_interval


def describe_raters(votes: Sequence[UnblindedVote]) -> dict[str, dict[str, Any]]:
    """Statistics of each rater, by name."""
    return {
        rater: _described([vote for vote in votes if vote.rater == rater])
        for rater in dict.fromkeys(vote.rater for vote in votes)
    }


def retest_raters(votes: Sequence[UnblindedVote]) -> dict[str, Any]:
    """The share of repeats that received the same answer as before."""
    before = {
        (vote.rater, vote.question, vote.item.item): vote.winner
        for vote in votes
        if vote.item.repeat_of is None
    }
    same = [
        vote.winner == before[place]
        for vote in votes
        if (place := (vote.rater, vote.question, vote.item.repeat_of or "")) in before
    ]
    return _share(sum(same), len(same))


def _described(votes: Sequence[UnblindedVote]) -> dict[str, Any]:
    times = [vote.vote.ms for vote in votes if vote.vote.ms is not None]
    placed = [vote.vote for vote in votes if vote.vote.left is not None and vote.vote.choice != "tie"]
    return {
        "votes": len(votes),
        "seconds": median(times) / 1000 if times else None,
        "ties": _share(sum(vote.winner is None for vote in votes), len(votes)),
        "left": _share(sum(vote.choice == vote.left for vote in placed), len(placed)),
        "retest": retest_raters(votes),
    }


def _share(count: int, n: int) -> dict[str, Any]:
    """A share with Wilson's interval; null if n is 0."""
    low, high = wilson_interval(count, n)
    return (
        {"n": n, "mean": count / n, "low": low, "high": high}
        if n
        else {"n": 0, "mean": None, "low": None, "high": None}
    )
