"""Writes a study's table as Markdown, JSON and CSV.

OUT/table.md   OUT/table.json   OUT/table.csv
"""

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lavibridge.core.files import write_atomic, write_json
from lavibridge.study import formatting
from lavibridge.study.ceiling_cache import Ceiling
from lavibridge.study.table import StudyTable, StudyTableRow

CEILING_COLUMNS = {"color": "Ceiling, colour", "shape": "Ceiling, shape"}
CEILING_NOTE = (
    "Ceiling: how often the language model's features of a word that no caption contains (“crimson”, “disc”) "
    "are nearest to those of the correct plain word, as the connector reads them before training. Chance is "
    "12.5 % for colours and 16.7 % for shapes. Intervals are over words."
)
_COLUMNS = (
    *("study", "condition", "label", "row", "suite", "metric", "categories", "clause", "better", "unit"),
    *("seeds", "prompts", "unscored", "mean", "low", "high"),
    *("difference", "difference_low", "difference_high", "p", "p_holm"),
)


def write_tables(table: StudyTable, ceilings: Mapping[str, Ceiling], out: Path) -> str:
    """Write all three files and return the Markdown."""
    text = _markdown(table, ceilings)
    write_atomic(out / "table.md", text)
    write_json(out / "table.json", _as_json(table, ceilings))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_flat(table))
    write_atomic(out / "table.csv", buffer.getvalue())
    return text


def _markdown(table: StudyTable, ceilings: Mapping[str, Ceiling]) -> str:
    """The table, the differences from the baseline, the claims, and what is missing."""
    study, labels = table.study, tuple(table.labels.values())
    parts = [f"# {study.name}", study.question, study.comment.strip(), formatting.INTERVAL_NOTE]
    rows = [[_named(row), *(_value(row, name) for name in table.labels), _size(row)] for row in table.rows]
    parts.append(_grid(["", *labels, "n"], rows + _ceiling_rows(table, ceilings)))
    if ceilings:
        parts.append(CEILING_NOTE)
    others = [name for name in table.labels if name != table.baseline]
    if others:
        parts.append(f"Differences from {table.labels[table.baseline]}:")
        rows = [[_named(row), *(_change(row, name) for name in others)] for row in table.rows]
        parts.append(_grid(["", *(table.labels[name] for name in others)], rows))
    if study.claims:
        parts += ["## Claims", *_claims(table)]
    if ceilings:
        parts += ["## What each layer knows", *_layers(table, ceilings)]
    if study.not_measured:
        listed = [f"- {name}: {why}" for name, why in study.not_measured.items()]
        parts += ["## Not measured", "\n".join(listed)]
    if table.missing:
        parts.append(f"Not finished: {', '.join(table.missing)}.")
    return "\n\n".join(part for part in parts if part) + "\n"


def _as_json(table: StudyTable, ceilings: Mapping[str, Ceiling]) -> dict[str, Any]:
    """The table as JSON, with null for NaN."""
    found: dict[str, Any] = _plain(
        {
            "study": table.study.name,
            "question": table.study.question,
            "baseline": table.baseline,
            "conditions": dict(table.labels),
            "rows": [
                {
                    **row.spec.model_dump(mode="json"),
                    "unit": row.unit,
                    "entries": {name: asdict(entry) for name, entry in row.entries.items()},
                }
                for row in table.rows
            ],
            "claims": [
                {**claim.model_dump(mode="json"), "verdicts": [asdict(each) for each in verdicts]}
                for claim, verdicts in zip(table.study.claims, table.verdicts, strict=True)
            ],
            "ceilings": {
                name: {
                    layer: {what: asdict(share) for what, share in each.items()}
                    for layer, each in found.items()
                }
                for name, found in ceilings.items()
            },
            "not_measured": table.study.not_measured,
            "missing": list(table.missing),
        }
    )
    return found


def _ceiling_rows(table: StudyTable, ceilings: Mapping[str, Ceiling]) -> list[list[str]]:
    if not ceilings:
        return []
    rows = []
    for what, title in CEILING_COLUMNS.items():
        cells = [
            formatting.format_study_value(ceilings[name]["read"][what], "share")
            if name in ceilings
            else formatting.EMPTY_VALUE
            for name in table.labels
        ]
        some = next(iter(ceilings.values()))["read"][what]
        rows.append([title, *cells, f"{some.n} phrases, {some.words} words"])
    return rows


def _layers(table: StudyTable, ceilings: Mapping[str, Ceiling]) -> Iterator[str]:
    """The layers of each language model; conditions with the same model share a table."""
    conditions: dict[str, list[str]] = {}
    for name, found in ceilings.items():
        rows = [
            [layer, *(formatting.format_study_value(each[what], "share") for what in CEILING_COLUMNS)]
            for layer, each in found.items()
            if layer != "read"
        ]
        conditions.setdefault(_grid(["", "colour", "shape"], rows), []).append(table.labels[name])
    for text, names in conditions.items():
        yield f"{', '.join(names)}:"
        yield text


def _claims(table: StudyTable) -> Iterator[str]:
    for claim, verdicts in zip(table.study.claims, table.verdicts, strict=True):
        yield f"{claim.says} ({table.labels[claim.better]} against {table.labels[claim.than]})"
        yield _grid(
            ["", "verdict", "difference"],
            [
                [
                    each.row,
                    each.verdict,
                    formatting.EMPTY_VALUE
                    if each.difference is None
                    else formatting.format_study_change(
                        each.difference, table.unit(each.row), each.difference.p
                    ),
                ]
                for each in verdicts
            ],
        )


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def _named(row: StudyTableRow) -> str:
    return f"{row.spec.name} (lower is better)" if row.spec.better == "lower" else row.spec.name


def _value(row: StudyTableRow, name: str) -> str:
    if name not in row.entries:
        return formatting.EMPTY_VALUE
    text = formatting.format_study_value(row.entries[name].value, row.unit)
    return f"**{text}**" if row.best() == name else text


def _change(row: StudyTableRow, name: str) -> str:
    entry = row.entries.get(name)
    if entry is None or entry.difference is None:
        return formatting.EMPTY_VALUE
    return formatting.format_study_change(entry.difference, row.unit, entry.p_holm)


def _size(row: StudyTableRow) -> str:
    """The distinct sample sizes of a row; the JSON has one per condition."""
    sizes = [formatting.format_study_sample_size(entry.value) for entry in row.entries.values()]
    return "; ".join(dict.fromkeys(sizes)) or formatting.EMPTY_VALUE


def _flat(table: StudyTable) -> Iterator[dict[str, Any]]:
    for row in table.rows:
        spec = row.spec
        for name, entry in row.entries.items():
            value, change = entry.value, entry.difference
            yield {
                "study": table.study.name,
                "condition": name,
                "label": table.labels[name],
                "row": spec.name,
                "suite": spec.suite,
                "metric": spec.metric,
                "categories": " ".join(spec.categories or ()),
                "clause": spec.clause or "",
                "better": spec.better,
                "unit": row.unit,
                **_plain(
                    {
                        key: getattr(value, key)
                        for key in ("seeds", "prompts", "unscored", "mean", "low", "high")
                    }
                ),
                **(
                    {}
                    if change is None
                    else _plain(
                        {
                            "difference": change.mean,
                            "difference_low": change.low,
                            "difference_high": change.high,
                            "p": change.p,
                            "p_holm": entry.p_holm,
                        }
                    )
                ),
            }


def _plain(value: Any) -> Any:
    """Replace non-finite numbers by null, since JSON has no NaN."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
