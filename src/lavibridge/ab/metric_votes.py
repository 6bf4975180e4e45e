"""Lets a metric vote in place of a person: it prefers the picture with the higher score, or ties.

The scores come from the evaluations, by way of the key. The world's exact checker can therefore vote, the
whole procedure runs without people, and `score_ab_votes` reports how often a metric agrees with the people.
"""

from collections.abc import Iterator

from lavibridge.ab.key import KEY_FORMAT, QUESTIONS, AbKey
from lavibridge.ab.votes import Vote, VoteChoice
from lavibridge.core.errors import RunError, did_you_mean


def metric_votes(key: AbKey, metric: str, question: str) -> Iterator[Vote]:
    """Yield a vote on every comparison whose two pictures the metric scored.

    Raises RunError for an unknown question, or a metric that not all runs share.
    """
    if question not in QUESTIONS:
        raise RunError(
            f"there is no question '{question}'{did_you_mean(question, tuple(QUESTIONS))} "
            f"(there are {', '.join(QUESTIONS)})"
        )
    known = tuple(dict.fromkeys(name for item in key.items for name in item.scores))
    if metric not in known:
        raise RunError(
            f"the metric '{metric}' scored no comparison of this study{did_you_mean(metric, known)} "
            f"(there are {', '.join(known) or 'no scores'}): evaluate the runs with it before "
            "`lavi ab build`"
        )
    for item in key.items:
        first, second = item.scores.get(metric, (None, None))
        if first is not None and second is not None:
            yield Vote(
                study=key.study,
                form=KEY_FORMAT,
                rater=f"metric:{metric}",
                item=item.item,
                question=question,
                choice=_preferred(first, second),
                metric=metric,
            )


def _preferred(first: float, second: float) -> VoteChoice:
    return "tie" if first == second else "first" if first > second else "second"
