"""Score tables from results.json: categories down, conditions across, each number with n and interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lavibridge.report.records import RunRecord

Cells = Mapping[str, Mapping[str, Any]]
"""Figures by the name of their row."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """A figure with its 95 % interval; shares are in per cent."""

    n: int
    mean: float
    low: float | None
    high: float | None
    is_share: bool

    @property
    def text(self) -> str:
        """Such as `71.3 % (65.9 to 76.2)` or `0.3102 (0.3076 to 0.3128)`."""
        form, mark = ("{:.1f}", " %") if self.is_share else ("{:.4g}", "")
        value = form.format(self.mean) + mark
        if self.low is None or self.high is None:
            return value
        return f"{value} ({form.format(self.low)} to {form.format(self.high)})"


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """One table: `cells[row][column]`, None where a condition was not scored."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    cells: tuple[tuple[Score | None, ...], ...]
    is_detail: bool = False
    """Whether it shows parts of another table's scores."""


def score_tables(runs: Sequence[RunRecord]) -> list[ScoreTable]:
    """A table for each suite and metric, then one of clauses for each of their categories."""
    found: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    for run in runs:
        for label, results in _conditions(run, alone=len(runs) == 1):
            for metric, each in results["metrics"].items():
                found.setdefault((results["suite"], metric), {})[label] = each
    tables, details = [], []
    for (suite, metric), by_condition in found.items():
        title = f"{metric}, suite {suite}"
        tables.append(
            _table(title, {label: _rows(each) for label, each in by_condition.items()}, by_condition)
        )
        for category in _union([each.get("categories") or {} for each in by_condition.values()]):
            clauses = {
                label: (each.get("categories") or {}).get(category, {}).get("clauses") or {}
                for label, each in by_condition.items()
            }
            if any(clauses.values()):
                details.append(_table(f"{title}, {category}: part by part", clauses, by_condition, True))
    return tables + details


def _conditions(run: RunRecord, alone: bool) -> list[tuple[str, Mapping[str, Any]]]:
    """The results of a run by a name for each: its own, those that they were compared with, other suites'."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    for results in (run.results, *run.evaluations):
        if "metrics" in results:
            found.append(("this bridge" if alone else run.name, results))
            compared = results.get("compared") or {}
            found += [(name if alone else f"{name}, {run.name}", other) for name, other in compared.items()]
    return found


def _rows(entry: Mapping[str, Any]) -> Cells:
    """The figures of a metric: by category, over all of them, and its totals."""
    categories = entry.get("categories") or {}
    whole = {"all": entry["all"]} if len(categories) > 1 else {}
    return {**categories, **whole, **(entry.get("totals") or {})}


def _union(found: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Keys of all mappings in order of first appearance."""
    return tuple(dict.fromkeys(name for each in found for name in each))


def _table(
    title: str,
    conditions: Mapping[str, Cells],
    entries: Mapping[str, Mapping[str, Any]],
    is_detail: bool = False,
) -> ScoreTable:
    rows = _union(list(conditions.values()))
    cells = tuple(
        tuple(
            _score(found.get(row), entries[label].get("unit") == "share")
            for label, found in conditions.items()
        )
        for row in rows
    )
    return ScoreTable(title=title, columns=tuple(conditions), rows=rows, cells=cells, is_detail=is_detail)


def _score(value: Any, is_share: bool) -> Score | None:
    """A figure as evaluation writes it, or None where nothing was scored."""
    if not isinstance(value, Mapping) or not value.get("n") or value.get("mean") is None:
        return None
    scale = 100.0 if is_share else 1.0
    low, high = (None if value[name] is None else scale * value[name] for name in ("low", "high"))
    return Score(n=value["n"], mean=scale * value["mean"], low=low, high=high, is_share=is_share)
