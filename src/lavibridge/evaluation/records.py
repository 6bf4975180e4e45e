"""What is written down of an evaluation while it goes on, by one process or several, and when it is done.

    records-R.jsonl    of process R, appended: a line when a picture is drawn, a line when it is scored
    records.jsonl      of all, one line a picture: category, prompt, seed, name, file, scores, clauses, ...

The order of the lines means nothing, since the next session may have another number of processes. A picture
that is drawn again has a higher `drawing`, and scores of an earlier one are void.
Scores carry the short hash of their metric's card (`by`):
those of another card do not count, and their pictures are scored anew.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lavibridge.core.errors import RunError
from lavibridge.core.files import write_atomic
from lavibridge.core.log import JsonLog
from lavibridge.evaluation.base import Score, Task

Key = tuple[str, str, int]


@dataclass(kw_only=True)
class Record:
    """What is known of one picture."""

    category: str
    prompt: str
    seed: int
    file: str
    name: str = ""
    drawing: int = 0
    """How often it was drawn again."""
    drawn_with: str = ""
    """The short hash of the settings, bridge included, that it was drawn with (kept.py)."""
    sha256: str = ""
    """Of the picture's file; empty where there is none."""
    undrawn: str = ""
    """Why there is no picture, though it was to be drawn; empty where there is one."""
    scores: dict[str, float | None] = field(default_factory=dict)
    """By metric; None = not scored, and `reasons` says why."""
    clauses: dict[str, dict[str, float | list[float]]] = field(default_factory=dict)
    detail: dict[str, dict[str, Any]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    by: dict[str, str] = field(default_factory=dict)
    """By metric, the short hash of its card."""

    @property
    def key(self) -> Key:
        """What the task of the picture is called."""
        return self.category, self.prompt, self.seed

    def is_scored(self, metric: str, by: str) -> bool:
        """Whether the metric has judged the picture, as it is now set up."""
        return self.by.get(metric) == by


def read_records(out: Path, cards: Mapping[str, str] | None = None) -> dict[Key, Record]:
    """All records of a folder, those of unfinished processes included.

    Of the metrics in `cards`, short hashes by name, scores under other cards are left out. RunError where a
    file is damaged, or was written by a version of lavibridge with other records.
    """
    # The parts first: whoever puts all of them together removes them only when records.jsonl is whole.
    parts = [line for path in sorted(out.glob("records-*.jsonl")) for line in _lines(path)]
    lines = [*_lines(out / "records.jsonl"), *parts]
    try:
        return _gather(lines, cards or {})
    except (KeyError, TypeError):
        raise RunError(
            f"{out} holds records of another form, perhaps of an older version: give another --out, or "
            "delete images and records*.jsonl there to draw anew"
        ) from None


def open_log(out: Path, rank: int) -> JsonLog:
    """The file that a process appends to; a line that was cut short when it stopped is taken off."""
    path = out / f"records-{rank}.jsonl"
    written = path.read_bytes() if path.is_file() else b""
    whole = written[: written.rfind(b"\n") + 1]
    if len(whole) < len(written):
        write_atomic(path, whole)
    return JsonLog(path)


def drawn_line(task: Task, drawing: int, drawn_with: str, sha256: str, undrawn: str = "") -> dict[str, Any]:
    """The line that says that a picture is there, and which, or why it could not be drawn."""
    told = {"file": task.file, "name": task.name, "drawn_with": drawn_with, "sha256": sha256}
    return {**_named(task, drawing), **told, **({"undrawn": undrawn} if undrawn else {})}


def score_line(task: Task, drawing: int, metric: str, by: str, score: Score) -> dict[str, Any]:
    """The line that says what a metric says of a drawing; NaN becomes null with a reason."""
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
    """Put the records of all processes into one file, and remove the parts."""
    lines = (json.dumps(vars(record), ensure_ascii=False, allow_nan=False) for record in records)
    write_atomic(out / "records.jsonl", "".join(f"{line}\n" for line in lines))
    for path in out.glob("records-*.jsonl"):
        path.unlink(missing_ok=True)


def _named(task: Task, drawing: int) -> dict[str, Any]:
    return {"category": task.category, "prompt": task.prompt, "seed": task.seed, "drawing": drawing}


def _gather(lines: Sequence[dict[str, Any]], cards: Mapping[str, str]) -> dict[Key, Record]:
    """The newest drawing of each picture, and what is said of it."""
    found: dict[Key, Record] = {}
    scores = [line for line in lines if "metric" in line]
    for line in lines:
        if "metric" not in line:
            record = Record(**line)
            for metric in [name for name, by in record.by.items() if cards.get(name, by) != by]:
                _forget(record, metric)
            if record.key not in found or found[record.key].drawing < record.drawing:
                found[record.key] = record
    for line in scores:
        record = found[line["category"], line["prompt"], line["seed"]]
        if line["drawing"] == record.drawing and cards.get(line["metric"], line["by"]) == line["by"]:
            _add_score(record, line)
    return found


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
    """The objects of a file of JSON lines; what follows the last newline is not whole yet."""
    if not path.is_file():
        return
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n")[:-1], start=1):
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            raise RunError(f"{path}: line {number} is damaged; delete the file to draw anew") from None
