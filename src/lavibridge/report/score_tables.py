"""Builds score tables (categories by evaluations, each with n and interval) and paired differences.

    table        {suite, version, metric, card, unit, columns: [{label, run, is_own}],
                  rows: [{name, cells: [estimate or null]}], unscored, details}
    difference   {suite, version, metric, unit, first, second, rows: [{name, n, mean, low, high, p}]}

Each metric card has its own table. Differences are those of `lavi compare`: prompt by prompt, from the same
seeds.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lavibridge.core.errors import RunError
from lavibridge.core.identity import card_hash
from lavibridge.evaluation.compare import compare_evaluations
from lavibridge.report.evaluations import Evaluation, EvaluationGroup

Cells = Mapping[str, Mapping[str, Any]]
"""Estimates by the name of their row."""


def score_tables(groups: Sequence[EvaluationGroup]) -> list[dict[str, Any]]:
    """One table per suite, metric and card, with its clauses in `details`."""
    return [
        _table(group, metric, by_label) for group in groups for metric, by_label in _by_card(group.columns)
    ]


def score_differences(groups: Sequence[EvaluationGroup]) -> tuple[list[dict[str, Any]], list[str]]:
    """Paired differences: the first run against the others, and each run against its baselines.

    Also returns notes on evaluations that cannot be paired.
    """
    found: list[dict[str, Any]] = []
    notes: list[str] = []
    for group in groups:
        for first, second in score_pairs(group):
            assert first.folder is not None  # `pairs` yields evaluations with folders only
            assert second.folder is not None
            try:
                compared = compare_evaluations(first.folder, second.folder)
            except RunError as error:
                text = str(error).replace(str(first.folder), first.label)
                notes.append(f"no paired difference: {text.replace(str(second.folder), second.label)}")
                continue
            for metric, rows in compared["metrics"].items():
                found.append(
                    {
                        "suite": group.suite,
                        "version": group.version,
                        "metric": metric,
                        "unit": first.results["metrics"][metric].get("unit", ""),
                        "first": first.label,
                        "second": second.label,
                        "pictures": compared["pictures"],
                        "rows": [{"name": name, **row} for name, row in rows.items()],
                    }
                )
    return found, notes


def score_pairs(group: EvaluationGroup) -> Iterator[tuple[Evaluation, Evaluation]]:
    """The pairs of evaluations in a group to compare image by image."""
    columns = [each for each in group.columns if each.folder is not None]
    own = [each for each in columns if each.is_own]
    for second in columns:
        first = own[0] if second.is_own and own else next((o for o in own if o.run == second.run), None)
        if first is not None and first is not second:
            yield first, second


def _by_card(columns: Sequence[Evaluation]) -> Iterator[tuple[str, dict[str, Mapping[str, Any]]]]:
    """Yield (metric, its entry by column) for every metric and card."""
    found: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for column in columns:
        for metric, entry in column.results["metrics"].items():
            found.setdefault((metric, card_hash(entry.get("card"))), {})[column.label] = entry
    for (metric, _), entries in found.items():
        yield metric, entries


def _table(group: EvaluationGroup, metric: str, entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    parts = []
    for category in _union([each.get("categories") or {} for each in entries.values()]):
        clauses = {
            label: (each.get("categories") or {}).get(category, {}).get("clauses") or {}
            for label, each in entries.items()
        }
        if any(clauses.values()):
            parts.append({"category": category, "rows": _rows(clauses)})
    one = next(iter(entries.values()))
    return {
        "suite": group.suite,
        "version": group.version,
        "metric": metric,
        "card": card_hash(one.get("card")),
        "unit": one.get("unit", ""),
        "columns": [
            {"label": each.label, "run": each.run, "is_own": each.is_own}
            for each in group.columns
            if each.label in entries
        ],
        "rows": _rows({label: _figures(each) for label, each in entries.items()}),
        "unscored": {label: each["unscored"] for label, each in entries.items() if each.get("unscored")},
        "details": parts,
    }


def _figures(entry: Mapping[str, Any]) -> Cells:
    """The estimates of a metric: overall, by category, and its totals."""
    categories = entry.get("categories") or {}
    whole = {"all": entry["all"]} if len(categories) > 1 and "all" in entry else {}
    bare = {name: {k: v for k, v in each.items() if k != "clauses"} for name, each in categories.items()}
    return {**whole, **bare, **(entry.get("totals") or {})}


def _rows(columns: Mapping[str, Cells]) -> list[dict[str, Any]]:
    return [
        {"name": name, "cells": [_scored(cells.get(name)) for cells in columns.values()]}
        for name in _union(list(columns.values()))
    ]


def _scored(value: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """An estimate from results.json, or None if nothing was scored."""
    return dict(value) if value and value.get("n") and value.get("mean") is not None else None


def _union(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys of all mappings in order of first appearance."""
    return list(dict.fromkeys(name for each in found for name in each))
