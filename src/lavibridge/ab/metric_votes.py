"""A metric votes in place of a person: it prefers the picture that it scored higher, and ties where equal.

The scores are those of the evaluations, kept in the key. So the world's exact checker can vote, the whole
path runs without people, and where people voted too, `score` says how often a metric sided with them.
"""

from collections.abc import Iterator

from lavibridge.ab.key import FORM, QUESTIONS, StudyKey, Vote, VoteChoice
from lavibridge.core.config import did_you_mean
from lavibridge.core.errors import RunError


def metric_votes(key: StudyKey, metric: str, question: str) -> Iterator[Vote]:
    """A vote on every comparison of which the metric scored both pictures.

    RunError for an unknown question, or a metric that the runs do not all have.
    """
    if question not in QUESTIONS:
        raise RunError(
            f"there is no question '{question}'{did_you_mean(question, tuple(QUESTIONS))} "
            f"(there are {', '.join(QUESTIONS)})"
        )
    known = tuple(dict.fromkeys(name for item in key.items for name in item.scores))
    if metric not in known:
        raise RunError(
            f"no comparison of this study was scored by '{metric}'{did_you_mean(metric, known)} "
            f"(there are {', '.join(known) or 'no scores at all'}): evaluate the runs with it before "
            "`lavi ab build`"
        )
    for item in key.items:
        first, second = item.scores.get(metric, (None, None))
        if first is not None and second is not None:
            yield Vote(
                study=key.study,
                form=FORM,
                rater=f"metric:{metric}",
                item=item.item,
                question=question,
                choice=_preferred(first, second),
                metric=metric,
            )


def _preferred(first: float, second: float) -> VoteChoice:
    return "tie" if first == second else "first" if first > second else "second"
