"""The records of an evaluation: logs that each process appends to, merged into one file at the end.

    records-R.jsonl    process R appends a line per generated image and a line per score
    records.jsonl      merged, one line per image: category, prompt, seed, name, file, scores, clauses, ...

The order of lines has no meaning, because sessions may use different numbers of processes. Generating an
image again raises its `drawing` and voids earlier scores. Each score holds the short hash of its metric's
card (`by`); a changed card voids it too.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_origin, get_type_hints

from lavibridge.core.errors import LaviError, RunError
from lavibridge.core.files import parse_json, write_atomic
from lavibridge.core.log import JsonLog
from lavibridge.core.paths import path_below
from lavibridge.evaluation.base import Score, Task

RecordKey = tuple[str, str, int]


@dataclass(kw_only=True)
class Record:
    """One image with its scores."""

    category: str
    prompt: str
    seed: int
    file: str
    name: str = ""
    drawing: int = 0
    """How many times it was generated again."""
    drawn_with: str = ""
    """The short hash of the settings and the bridge that generated it (provenance.py)."""
    sha256: str = ""
    """Hash of the image's file; empty if there is none."""
    undrawn: str = ""
    """The reason why generation failed; empty if there is an image."""
    scores: dict[str, float | None] = field(default_factory=dict)
    """Score by metric; None means not scored, for the reason in `reasons`."""
    clauses: dict[str, dict[str, float | list[float]]] = field(default_factory=dict)
    detail: dict[str, dict[str, Any]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    by: dict[str, str] = field(default_factory=dict)
    """Short hash of the metric's card, by metric."""

    @property
    def key(self) -> RecordKey:
        """The key of its task."""
        return self.category, self.prompt, self.seed

    def is_scored(self, metric: str, by: str) -> bool:
        """Whether the metric, as currently configured, has scored the image."""
        return self.by.get(metric) == by


def read_records(out: Path, cards: Mapping[str, str] | None = None) -> dict[RecordKey, Record]:
    """Read all records of a folder, including those of unfinished processes.

    For metrics in `cards` (name -> short hash), ignores scores with other cards. Raises RunError if a file is
    damaged or has another version's format, or if a record names an image outside the folder.
    """
    # Read the parts first: the merging process removes them only after records.jsonl is complete.
    parts = [line for path in sorted(out.glob("records-*.jsonl")) for line in _lines(path)]
    lines = [*_lines(out / "records.jsonl"), *parts]
    try:
        records = _gather(lines, cards or {})
    except (KeyError, TypeError, AttributeError):
        raise RunError(
            f"{out} holds records in another format, perhaps of an older version: choose another --out, or "
            "delete its images and records*.jsonl to generate again"
        ) from None
    for record in records.values():
        path_below(out, record.file)
    return records


def open_record_log(out: Path, rank: int) -> JsonLog:
    """Open the log that a process appends to, and remove an incomplete last line."""
    path = out / f"records-{rank}.jsonl"
    written = path.read_bytes() if path.is_file() else b""
    whole = written[: written.rfind(b"\n") + 1]
    if len(whole) < len(written):
        write_atomic(path, whole)
    return JsonLog(path)


def image_record(task: Task, drawing: int, drawn_with: str, sha256: str, undrawn: str = "") -> dict[str, Any]:
    """Make the log line of an image, or of the reason why generation failed."""
    drawn = {"file": task.file, "name": task.name, "drawn_with": drawn_with, "sha256": sha256}
    return {**_named(task, drawing), **drawn, **({"undrawn": undrawn} if undrawn else {})}


def score_record(task: Task, drawing: int, metric: str, by: str, score: Score) -> dict[str, Any]:
    """Make the log line of a score; NaN becomes null with a reason."""
    return {
        **_named(task, drawing),
        "metric": metric,
        "by": by,
        "score": None if score.reason else score.value,
        "clauses": dict(score.clauses),
        "detail": dict(score.detail),
        "reason": score.reason,
    }


def write_records(out: Path, records: Sequence[Record]) -> None:
    """Merge the records of all processes into one file and remove the parts."""
    lines = (json.dumps(vars(record), ensure_ascii=False, allow_nan=False) for record in records)
    write_atomic(out / "records.jsonl", "".join(f"{line}\n" for line in lines))
    for path in out.glob("records-*.jsonl"):
        path.unlink(missing_ok=True)


def _named(task: Task, drawing: int) -> dict[str, Any]:
    return {"category": task.category, "prompt": task.prompt, "seed": task.seed, "drawing": drawing}


def _gather(lines: Sequence[dict[str, Any]], cards: Mapping[str, str]) -> dict[RecordKey, Record]:
    """The newest version of each image with its scores."""
    found: dict[RecordKey, Record] = {}
    scores = [line for line in lines if "metric" in line]
    for line in lines:
        if "metric" not in line:
            record = _record(line)
            for metric in [name for name, by in record.by.items() if cards.get(name, by) != by]:
                _forget(record, metric)
            if record.key not in found or found[record.key].drawing < record.drawing:
                found[record.key] = record
    for line in scores:
        record = found[line["category"], line["prompt"], line["seed"]]
        if line["drawing"] == record.drawing and cards.get(line["metric"], line["by"]) == line["by"]:
            _add_score(record, line)
    return found


def _record(line: Mapping[str, Any]) -> Record:
    """Return the record of a line. Raises TypeError for fields of other types."""
    record = Record(**line)
    for name, kind in get_type_hints(Record).items():
        if not isinstance(getattr(record, name), get_origin(kind) or kind):
            raise TypeError(name)
    return record


def _forget(record: Record, metric: str) -> None:
    parts: tuple[dict[str, Any], ...] = (
        record.scores,
        record.clauses,
        record.detail,
        record.reasons,
        record.by,
    )
    for part in parts:
        part.pop(metric, None)


def _add_score(record: Record, line: dict[str, Any]) -> None:
    name = line["metric"]
    record.scores[name], record.by[name] = line["score"], line["by"]
    record.clauses[name], record.detail[name] = line["clauses"], line["detail"]
    record.reasons.pop(name, None)
    if line["reason"]:
        record.reasons[name] = line["reason"]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file of JSON lines; ignores an incomplete last line."""
    if not path.is_file():
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            found = parse_json(line, str(path))
        except LaviError:
            found = None
        if not isinstance(found, dict):
            raise RunError(f"{path}: line {number} is damaged; delete the file to generate again") from None
        yield found
