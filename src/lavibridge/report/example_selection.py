"""Selects the images of a report: prompts side by side, worst and best, and largest disagreements.

The side-by-side prompts spread evenly over the suite, independent of their scores.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from lavibridge.evaluation.records import Record, RecordKey
from lavibridge.report.evaluations import Evaluation, EvaluationGroup
from lavibridge.report.examples import make_example
from lavibridge.report.score_tables import score_pairs

_ROWS = 8
"""Prompts shown side by side."""
_CASES = 4
"""Pictures shown as worst, as best, and on each side of a disagreement."""

Records = Mapping[RecordKey, Record]


def select_examples_side_by_side(groups: Sequence[EvaluationGroup]) -> list[dict[str, Any]]:
    """Per group, prompts for which all its evaluations have images: {suite, version, columns, rows, of}."""
    found = []
    for group in groups:
        columns = [each for each in group.columns if each.folder is not None]
        if not columns:
            continue
        drawn = [each.records for each in columns]
        shared = [key for key in drawn[0] if all(key in other for other in drawn[1:])]
        if shared:
            found.append(
                {
                    "suite": group.suite,
                    "version": group.version,
                    "columns": [each.label for each in columns],
                    "rows": [make_example(key, columns) for key in _spread(shared, _ROWS)],
                    "of": len(shared),
                }
            )
    return found


def select_extreme_examples(groups: Sequence[EvaluationGroup]) -> list[dict[str, Any]]:
    """The worst and the best of each run's own images by each metric: {suite, metric, by, worst, best}.

    Among equal scores, the worst satisfy the fewest clauses, and the best have the most clauses to satisfy.
    """
    found = []
    for group in groups:
        for each in group.columns:
            if each.folder is None or not each.is_own:
                continue
            records = each.records
            for metric in _picture_metrics(each):
                scored = [record for record in records.values() if _score(record, metric) is not None]
                worst = sorted(scored, key=lambda record: _rank(record, metric, best=False))[:_CASES]
                taken = {record.key for record in worst}
                left = [record for record in scored if record.key not in taken]
                best = sorted(left, key=lambda record: _rank(record, metric, best=True))[:_CASES]
                if worst:
                    named = {"suite": group.suite, "version": group.version, "metric": metric}
                    shown = {
                        name: [make_example(record.key, [each]) for record in chosen]
                        for name, chosen in (("worst", worst), ("best", best))
                    }
                    found.append({**named, "by": each.label, "of": len(scored), **shown})
    return found


def select_disputed_examples(groups: Sequence[EvaluationGroup]) -> list[dict[str, Any]]:
    """Prompts on which two runs differ most: {suite, metric, first, second, first_ahead, second_ahead}."""
    found = []
    for group in groups:
        for first, second in score_pairs(group):
            if not second.is_own:
                continue
            a, b = first.records, second.records
            for metric in _picture_metrics(first):
                if not _same_card(metric, first, second):
                    continue
                ahead = sorted(_gaps(a, b, metric), key=lambda each: (-each[0], each[1][2]))
                sides = {
                    "first_ahead": [key for gap, key in ahead[:_CASES] if gap > 0],
                    "second_ahead": [key for gap, key in ahead[::-1][:_CASES] if gap < 0],
                }
                named = {"suite": group.suite, "version": group.version, "metric": metric}
                shown = {
                    side: [make_example(key, [first, second]) for key in keys] for side, keys in sides.items()
                }
                if any(shown.values()):
                    counts = {
                        "ties": sum(gap == 0 for gap, _ in ahead),
                        "first_ahead_of": sum(gap > 0 for gap, _ in ahead),
                        "second_ahead_of": sum(gap < 0 for gap, _ in ahead),
                    }
                    found.append({**named, "first": first.label, "second": second.label, **counts, **shown})
    return found


def _picture_metrics(evaluation: Evaluation) -> list[str]:
    return [name for name, entry in evaluation.results["metrics"].items() if "all" in entry]


def _same_card(metric: str, first: Evaluation, second: Evaluation) -> bool:
    theirs = second.results["metrics"].get(metric)
    return theirs is not None and theirs.get("card") == first.results["metrics"][metric].get("card")


def _score(record: Record, metric: str) -> float | None:
    return record.scores.get(metric)


def _gaps(a: Records, b: Records, metric: str) -> Iterator[tuple[float, RecordKey]]:
    for key, record in a.items():
        ours = _score(record, metric)
        theirs = _score(b[key], metric) if key in b else None
        if ours is not None and theirs is not None:
            yield ours - theirs, key


def _rank(record: Record, metric: str, *, best: bool) -> tuple[float, float, int]:
    """A sort key, smallest first. The seed, a hash of the prompt, mixes the categories among ties."""
    kept = [fmean(value) if isinstance(value, list) else float(value) for value in _clauses(record, metric)]
    score = record.scores[metric] or 0.0
    if best:
        return -score, -float(len(kept)), record.seed
    return score, fmean(kept) if kept else math.inf, record.seed


def _clauses(record: Record, metric: str) -> list[float | list[float]]:
    return [value for value in record.clauses.get(metric, {}).values() if value != []]


def _spread(keys: Sequence[RecordKey], count: int) -> list[RecordKey]:
    """At most `count` keys, evenly spread: the middle of each interval."""
    if len(keys) <= count:
        return list(keys)
    return [keys[int((place + 0.5) * len(keys) / count)] for place in range(count)]
