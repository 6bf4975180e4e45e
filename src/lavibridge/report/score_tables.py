"""Score tables: categories down, evaluations across, each figure with its n and interval; then paired ones.

    table        {suite, version, metric, card, unit, columns: [{label, run, is_own}],
                  rows: [{name, cells: [estimate or null]}], unscored, details}
    difference   {suite, version, metric, unit, first, second, rows: [{name, n, mean, low, high, p}]}

Scores of another card of a metric make another table. Differences are those of `lavi compare`: prompt by
prompt, from the same noises.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lavibridge.core.errors import RunError
from lavibridge.core.identity import card_hash
from lavibridge.evaluation.compare import compare
from lavibridge.report.evaluations import Evaluation, EvaluationGroup

Cells = Mapping[str, Mapping[str, Any]]
"""Figures by the name of their row."""


def score_tables(groups: Sequence[EvaluationGroup]) -> list[dict[str, Any]]:
    """A table for each suite, metric and card, its parts (`details`) with it."""
    return [
        _table(group, metric, by_label) for group in groups for metric, by_label in _by_card(group.columns)
    ]


def differences(groups: Sequence[EvaluationGroup]) -> tuple[list[dict[str, Any]], list[str]]:
    """Paired differences: the first run's evaluation against the other runs', each against what is beside it.

    With notes on those that cannot be paired.
    """
    found: list[dict[str, Any]] = []
    notes: list[str] = []
    for group in groups:
        for first, second in pairs(group):
            assert first.folder is not None  # else there are no pairs
            assert second.folder is not None
            try:
                compared = compare(first.folder, second.folder)
            except RunError as error:
                told = str(error).replace(str(first.folder), first.label)
                notes.append(f"no paired difference: {told.replace(str(second.folder), second.label)}")
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


def pairs(group: EvaluationGroup) -> Iterator[tuple[Evaluation, Evaluation]]:
    """Which evaluations of a group are compared picture by picture."""
    columns = [each for each in group.columns if each.folder is not None]
    own = [each for each in columns if each.is_own]
    for second in columns:
        first = own[0] if second.is_own and own else next((o for o in own if o.run == second.run), None)
        if first is not None and first is not second:
            yield first, second


def _by_card(columns: Sequence[Evaluation]) -> Iterator[tuple[str, dict[str, Mapping[str, Any]]]]:
    """(metric, its entry by column) for every metric and card."""
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
    """The figures of a metric: over all categories, by category, and its totals."""
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
    """A figure as evaluation writes it, or None where nothing was scored."""
    return dict(value) if value and value.get("n") and value.get("mean") is not None else None


def _union(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys of all mappings in order of first appearance."""
    return list(dict.fromkeys(name for each in found for name in each))
