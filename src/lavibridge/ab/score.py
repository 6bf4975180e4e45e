"""Computes the statistics of a study's votes, as one record.

    questions.QUESTION.pairs       each pair of runs: win rate, sign tests, Davidson's preference; by category
    questions.QUESTION.strengths   each run in Elo points, 0 = the mean; null if unbounded
    questions.QUESTION.agreement   between raters: Fleiss' kappa, Krippendorff's alpha
    questions.QUESTION.metrics     how often a metric agrees with the people
    raters                         votes, seconds, ties, side bias and test-retest reliability of each

Repeats count only for test-retest reliability. If people voted, metrics do not count as raters.
"""

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from lavibridge.ab.bradley_terry import (
    ELO_POINTS,
    FIRST,
    SECOND,
    TIE,
    BradleyTerryStrengths,
    BradleyTerryVotes,
    fit_strengths,
)
from lavibridge.ab.key import QUESTIONS, AbKey
from lavibridge.ab.raters import describe_raters, retest_raters
from lavibridge.ab.reliability import RatingTable, fleiss_kappa, krippendorff_alpha, mirrored_ratings
from lavibridge.ab.tally import tally_votes
from lavibridge.ab.votes import UnblindedVote, VoteSet
from lavibridge.evaluation.stats import Estimate, bootstrap_interval_of, estimate

DRAWS = 500
"""Resamples of prompts for the intervals of agreement."""


def score_ab_votes(key: AbKey, read: VoteSet) -> dict[str, Any]:
    """The statistics of a study."""
    people = [cast for cast in read.votes if cast.vote.metric is None]
    metrics = [cast for cast in read.votes if cast.vote.metric is not None]
    counted = people or metrics
    firsts = [cast for cast in counted if cast.item.repeat_of is None]
    return {
        "study": key.study,
        "suite": key.suite,
        "runs": [run.name for run in key.runs],
        "comparisons": sum(item.repeat_of is None for item in key.items),
        "votes": len(firsts),
        "votes_on_repeats": len(counted) - len(firsts),
        "of_people": bool(people),
        "dropped": [vars(each) for each in read.rejected],
        "replaced": read.replaced,
        "raters": describe_raters(counted),
        "retest": retest_raters(counted),
        "questions": {
            question: _question(
                [cast for cast in firsts if cast.question == question],
                [cast for cast in metrics if cast.question == question] if people else [],
                [run.name for run in key.runs],
            )
            for question in QUESTIONS
            if any(cast.question == question for cast in firsts)
        },
    }


def _question(
    votes: Sequence[UnblindedVote], metrics: Sequence[UnblindedVote], names: Sequence[str]
) -> dict[str, Any]:
    strengths = fit_strengths(_ballots(votes), len(names))
    return {
        "votes": len(votes),
        "raters": len({vote.rater for vote in votes}),
        "prompts": len({vote.prompt for vote in votes}),
        "pairs": [
            {"run": names[a], "other": names[b], **_pair(votes, a, b, strengths, len(names))}
            for a, b in combinations(range(len(names)), 2)
        ],
        "strengths": None if strengths is None else _strengths(strengths, names),
        "agreement": _agreement(votes),
        "metrics": {
            name: _sides(votes, [cast for cast in metrics if cast.vote.metric == name])
            for name in dict.fromkeys(cast.vote.metric for cast in metrics)
        },
    }


def _pair(
    votes: Sequence[UnblindedVote], a: int, b: int, strengths: BradleyTerryStrengths | None, runs: int
) -> dict[str, Any]:
    """The counts of a pair; `preference` is the probability of choosing a over b, given no tie."""
    found = tally_votes(votes, a, b).record()
    found["preference"] = None
    if strengths is not None:
        contrast = [float(run == a) - float(run == b) for run in range(runs)]
        mean, low, high = (1 / (1 + math.exp(-each)) for each in strengths.interval(contrast))
        found["preference"] = {"mean": mean, "low": low, "high": high}
    categories = dict.fromkeys(vote.item.category for vote in votes)
    if len(categories) > 1:
        found["categories"] = {
            name: tally_votes([vote for vote in votes if vote.item.category == name], a, b).record()
            for name in categories
        }
    return found


def _strengths(strengths: BradleyTerryStrengths, names: Sequence[str]) -> dict[str, Any]:
    runs = len(names)
    points = {}
    for place, name in enumerate(names):
        contrast = [float(run == place) - 1 / runs for run in range(runs)]
        mean, low, high = (ELO_POINTS * each for each in strengths.interval(contrast))
        points[name] = {"mean": mean, "low": low, "high": high}
    return {"points": points, "nu": strengths.nu}


def _ballots(votes: Sequence[UnblindedVote]) -> BradleyTerryVotes:
    prompts = {prompt: place for place, prompt in enumerate(dict.fromkeys(vote.prompt for vote in votes))}
    raters = {rater: place for place, rater in enumerate(dict.fromkeys(vote.rater for vote in votes))}
    outcomes = [
        TIE if vote.winner is None else FIRST if vote.winner == vote.first else SECOND for vote in votes
    ]
    return BradleyTerryVotes(
        first=np.array([vote.first for vote in votes]),
        second=np.array([vote.second for vote in votes]),
        outcome=np.array(outcomes),
        prompt=np.array([prompts[vote.prompt] for vote in votes]),
        rater=np.array([raters[vote.rater] for vote in votes]),
    )


def _agreement(votes: Sequence[UnblindedVote]) -> dict[str, Any]:
    """Agreement over comparisons with at least two raters; intervals over prompts."""
    rows: dict[str, list[float]] = {}
    prompts: dict[tuple[str, str], list[str]] = {}
    for vote in votes:
        name = vote.item.item
        if name not in rows:
            rows[name] = [0.0, 0.0, 0.0]
            prompts.setdefault(vote.prompt, []).append(name)
        rows[name][{"first": 0, "tie": 1, "second": 2}[vote.vote.choice]] += 1
    shared = {name for name, row in rows.items() if sum(row) >= 2}
    clusters = [np.array([rows[name] for name in names if name in shared]) for names in prompts.values()]
    clusters = [mirrored_ratings(cluster) for cluster in clusters if len(cluster)]
    measures: dict[str, Callable[[RatingTable], float]] = {
        "fleiss_kappa": fleiss_kappa,
        "krippendorff_alpha": krippendorff_alpha,
        "krippendorff_alpha_ordinal": lambda table: krippendorff_alpha(table, "ordinal"),
    }
    return {name: _over_prompts(clusters, measure, len(shared)) for name, measure in measures.items()}


def _over_prompts(
    clusters: Sequence[RatingTable], measure: Callable[[RatingTable], float], n: int
) -> dict[str, Any]:
    def statistic(chosen: Sequence[RatingTable]) -> float:
        return measure(np.concatenate(chosen))

    if not clusters:
        return Estimate(n=n, mean=math.nan, low=math.nan, high=math.nan).record()
    low, high = bootstrap_interval_of(clusters, statistic, DRAWS)
    return Estimate(n=n, mean=statistic(clusters), low=low, high=high).record()


def _sides(votes: Sequence[UnblindedVote], metric: Sequence[UnblindedVote]) -> dict[str, Any]:
    """The share of people's votes without a tie that the metric shares; its own ties count half."""
    chosen = {cast.item.item: cast.winner for cast in metric}
    scores: dict[str, list[float]] = {}
    for vote in votes:
        if vote.winner is not None and vote.item.item in chosen:
            theirs = chosen[vote.item.item]
            agrees = 0.5 if theirs is None else float(theirs == vote.winner)
            scores.setdefault("/".join(vote.prompt), []).append(agrees)
    return estimate(scores).record()
