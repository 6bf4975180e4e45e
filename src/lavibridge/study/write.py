"""Writes the table of a study: as Markdown for people, as JSON for programs, as CSV for spreadsheets.

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
from lavibridge.study import texts
from lavibridge.study.knowledge import Ceiling
from lavibridge.study.table import Line, Table

CEILINGS = {"color": "Ceiling, colour", "shape": "Ceiling, shape"}
CEILING_NOTE = (
    "Ceiling: how often the language model's own features of a word that no caption has (“crimson”, “disc”) "
    "lie nearest to the right plain word's, as the connector reads them before training; chance is 12.5 % "
    "for colours and 16.7 % for shapes. Intervals over words."
)
COLUMNS = (
    *("study", "condition", "label", "row", "suite", "metric", "categories", "clause", "better", "unit"),
    *("seeds", "prompts", "unscored", "mean", "low", "high"),
    *("difference", "difference_low", "difference_high", "p", "p_holm"),
)


def write_tables(table: Table, ceilings: Mapping[str, Ceiling], out: Path) -> str:
    """Write all three, and return the Markdown."""
    text = markdown(table, ceilings)
    write_atomic(out / "table.md", text)
    write_json(out / "table.json", as_json(table, ceilings))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_flat(table))
    write_atomic(out / "table.csv", buffer.getvalue())
    return text


def markdown(table: Table, ceilings: Mapping[str, Ceiling]) -> str:
    """The table, the differences from the baseline, the claims, and what is not there."""
    study, labels = table.study, tuple(table.labels.values())
    parts = [f"# {study.name}", study.question, study.notes.strip(), texts.HOW]
    rows = [
        [_named(line), *(_value(line, name) for name in table.labels), _size(line)] for line in table.lines
    ]
    parts.append(_grid(["", *labels, "n"], rows + _ceiling_rows(table, ceilings)))
    if ceilings:
        parts.append(CEILING_NOTE)
    others = [name for name in table.labels if name != table.baseline]
    if others:
        parts.append(f"Differences from {table.labels[table.baseline]}:")
        rows = [[_named(line), *(_change(line, name) for name in others)] for line in table.lines]
        parts.append(_grid(["", *(table.labels[name] for name in others)], rows))
    if study.claims:
        parts += ["## Claims", *_claims(table)]
    if ceilings:
        parts += ["## What each layer knows", *_layers(table, ceilings)]
    if study.left_out:
        listed = [f"- {name}: {why}" for name, why in study.left_out.items()]
        parts += ["## Not measured", "\n".join(listed)]
    if table.missing:
        parts.append(f"Not finished: {', '.join(table.missing)}.")
    return "\n\n".join(part for part in parts if part) + "\n"


def as_json(table: Table, ceilings: Mapping[str, Ceiling]) -> dict[str, Any]:
    """Everything, with null for what is not a number."""
    found: dict[str, Any] = _plain(
        {
            "study": table.study.name,
            "question": table.study.question,
            "baseline": table.baseline,
            "conditions": dict(table.labels),
            "rows": [
                {
                    **line.row.model_dump(mode="json"),
                    "unit": line.unit,
                    "entries": {name: asdict(entry) for name, entry in line.entries.items()},
                }
                for line in table.lines
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
            "left_out": table.study.left_out,
            "missing": list(table.missing),
        }
    )
    return found


def _ceiling_rows(table: Table, ceilings: Mapping[str, Ceiling]) -> list[list[str]]:
    if not ceilings:
        return []
    rows = []
    for what, title in CEILINGS.items():
        cells = [
            texts.value(ceilings[name]["read"][what], "share") if name in ceilings else texts.NOTHING
            for name in table.labels
        ]
        some = next(iter(ceilings.values()))["read"][what]
        rows.append([title, *cells, f"{some.n} phrases, {some.words} words"])
    return rows


def _layers(table: Table, ceilings: Mapping[str, Ceiling]) -> Iterator[str]:
    """Each language model's layers; conditions that share one model share its table."""
    told: dict[str, list[str]] = {}
    for name, found in ceilings.items():
        rows = [
            [layer, *(texts.value(each[what], "share") for what in CEILINGS)]
            for layer, each in found.items()
            if layer != "read"
        ]
        told.setdefault(_grid(["", "colour", "shape"], rows), []).append(table.labels[name])
    for text, names in told.items():
        yield f"{', '.join(names)}:"
        yield text


def _claims(table: Table) -> Iterator[str]:
    for claim, verdicts in zip(table.study.claims, table.verdicts, strict=True):
        yield f"{claim.says} ({table.labels[claim.better]} against {table.labels[claim.than]})"
        yield _grid(
            ["", "verdict", "difference"],
            [
                [
                    each.row,
                    each.verdict,
                    texts.NOTHING
                    if each.difference is None
                    else texts.change(each.difference, table.unit(each.row), each.difference.p),
                ]
                for each in verdicts
            ],
        )


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _named(line: Line) -> str:
    return f"{line.row.name} (lower is better)" if line.row.better == "lower" else line.row.name


def _value(line: Line, name: str) -> str:
    if name not in line.entries:
        return texts.NOTHING
    text = texts.value(line.entries[name].value, line.unit)
    return f"**{text}**" if line.best() == name else text


def _change(line: Line, name: str) -> str:
    entry = line.entries.get(name)
    if entry is None or entry.difference is None:
        return texts.NOTHING
    return texts.change(entry.difference, line.unit, entry.p_holm)


def _size(line: Line) -> str:
    """The size on which most stand; the JSON has each one's."""
    sizes = [texts.size(entry.value) for entry in line.entries.values()]
    return "; ".join(dict.fromkeys(sizes)) or texts.NOTHING


def _flat(table: Table) -> Iterator[dict[str, Any]]:
    for line in table.lines:
        row = line.row
        for name, entry in line.entries.items():
            value, change = entry.value, entry.difference
            yield {
                "study": table.study.name,
                "condition": name,
                "label": table.labels[name],
                "row": row.name,
                "suite": row.suite,
                "metric": row.metric,
                "categories": " ".join(row.categories or ()),
                "clause": row.clause or "",
                "better": row.better,
                "unit": line.unit,
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
    """With null in the place of NaN, which JSON has not."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
