"""Score tables from results.json: categories down, conditions across, each number with n and interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lavibridge.report.records import RunRecord


@dataclass(frozen=True, kw_only=True)
class Score:
    """A rate with its 95 % interval, all in per cent."""

    n: int
    mean: float
    low: float
    high: float

    @property
    def text(self) -> str:
        """Such as `71.3 % (65.9 to 76.2)`."""
        return f"{self.mean:.1f} % ({self.low:.1f} to {self.high:.1f})"


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """One table: `cells[row][column]`, None where a condition was not scored."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    cells: tuple[tuple[Score | None, ...], ...]


def score_tables(runs: Sequence[RunRecord]) -> list[ScoreTable]:
    """A table of whole prompts kept, then one of clauses per category."""
    conditions: dict[str, Mapping[str, Any]] = {}
    for run in runs:
        if "categories" not in run.results:
            continue
        conditions[run.name if len(runs) > 1 else "this bridge"] = run.results["categories"]
        for label, other in (run.results.get("compared") or {}).items():
            conditions[f"{label}, {run.name}" if len(runs) > 1 else label] = other["categories"]
    if not conditions:
        return []
    categories = _union(list(conditions.values()))
    tables = [_table("Prompts kept whole", conditions, categories)]
    for category in categories:
        clauses = {label: found.get(category, {}).get("clauses") or {} for label, found in conditions.items()}
        names = _union(list(clauses.values()))
        if names:
            tables.append(_table(f"{category}: promise by promise", clauses, names))
    return tables


def _union(found: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Keys of all mappings in order of first appearance."""
    return tuple(dict.fromkeys(name for each in found for name in each))


def _table(title: str, conditions: Mapping[str, Mapping[str, Any]], rows: tuple[str, ...]) -> ScoreTable:
    cells = tuple(tuple(_score(found.get(row)) for found in conditions.values()) for row in rows)
    return ScoreTable(title=title, columns=tuple(conditions), rows=rows, cells=cells)


def _score(value: Any) -> Score | None:
    """A score as evaluation writes it, or None where nothing was scored."""
    if not isinstance(value, Mapping) or not value.get("n") or value.get("mean") is None:
        return None
    mean, low, high = (100.0 * value[name] for name in ("mean", "low", "high"))
    return Score(n=value["n"], mean=mean, low=low, high=high)
