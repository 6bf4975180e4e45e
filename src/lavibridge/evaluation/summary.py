"""Summarises each metric for results.json: its card, and means with intervals overall, by category and
clause.

{suite, version, steps, guidance, seed, prompts, n,
 metrics: {NAME: {card, all: {n, mean, low, high}, categories: {NAME: {..., clauses}}, totals, unscored}}}
"""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from lavibridge.evaluation.base import Score, ScoredTask
from lavibridge.evaluation.metrics.base import ImageMetric
from lavibridge.evaluation.records import Record
from lavibridge.evaluation.stats import estimate

Scores = dict[str, list[float]]
"""Scores by prompt."""


def summarize_metric(metric: ImageMetric, records: Sequence[Record]) -> dict[str, Any]:
    """Summarise a metric over the records that it applies to, all of them scored."""
    name = metric.name
    mine = [record for record in records if metric.applies_to(record.category)]
    by_category: dict[str, list[Record]] = {}
    for record in mine:
        by_category.setdefault(record.category, []).append(record)
    totals = metric.totals([_scored(record, name) for record in mine])
    reasons = Counter(record.reasons[name] for record in mine if name in record.reasons)
    found: dict[str, Any] = {
        "card": metric.card(),
        "unit": metric.unit,
        "all": estimate(_by_prompt(mine, name)).record(),
        "categories": {category: _of_category(each, name) for category, each in by_category.items()},
    }
    if totals:
        found["totals"] = {title: value.record() for title, value in totals.items()}
    if reasons:
        found["unscored"] = dict(reasons.most_common())
    return found


def _of_category(records: Sequence[Record], name: str) -> dict[str, Any]:
    """The mean of a category and of each of its clauses."""
    clauses: dict[str, Scores] = {}
    for record in records:
        for clause, value in record.clauses[name].items():
            values = value if isinstance(value, list) else [value]
            clauses.setdefault(clause, {}).setdefault(record.prompt, []).extend(map(float, values))
    means = {clause: estimate(each).record() for clause, each in clauses.items()}
    return {**estimate(_by_prompt(records, name)).record(), "clauses": means}


def _by_prompt(records: Sequence[Record], name: str) -> Scores:
    found: Scores = {}
    for record in records:
        found.setdefault(f"{record.category}/{record.prompt}", []).append(_value(record, name))
    return found


def _value(record: Record, name: str) -> float:
    score = record.scores[name]
    return math.nan if score is None else float(score)


def _scored(record: Record, name: str) -> ScoredTask:
    score = Score(
        value=_value(record, name),
        clauses={
            clause: tuple(value) if isinstance(value, list) else value
            for clause, value in record.clauses[name].items()
        },
        detail=record.detail[name],
        reason=record.reasons.get(name, ""),
    )
    return ScoredTask(category=record.category, prompt=record.prompt, seed=record.seed, score=score)
