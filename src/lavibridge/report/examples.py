"""A prompt with the pictures that were drawn of it, and what each judge says of each picture.

case = {category, prompt, seed, shown: [{by, run, file, undrawn, missing, verdicts}]}
verdict = {metric, unit, score, clauses: {name: value}, wrong: {name: sentence}, reason}
"""

from collections.abc import Sequence
from typing import Any

from lavibridge.core.errors import DataError, RunError
from lavibridge.evaluation.draw import check_drawn
from lavibridge.evaluation.records import Key, Record
from lavibridge.report.evaluations import Evaluation
from lavibridge.report.formatting import SHARE


def case(key: Key, columns: Sequence[Evaluation]) -> dict[str, Any]:
    """One prompt from one noise, as each of the evaluations has drawn it."""
    category, prompt, seed = key
    shown = [_shown(each, each.records[key]) for each in columns]
    return {"category": category, "prompt": prompt, "seed": seed, "shown": shown}


def _shown(evaluation: Evaluation, record: Record) -> dict[str, Any]:
    assert evaluation.folder is not None  # else it has no records
    entries = evaluation.results["metrics"]
    is_there = (evaluation.folder / record.file).is_file()
    if is_there:
        try:
            check_drawn(evaluation.folder, record)
        except DataError as error:
            raise RunError(str(error)) from None
    return {
        "by": evaluation.label,
        "run": evaluation.run,
        "file": f"{evaluation.place}/{record.file}",
        "undrawn": record.undrawn,
        "missing": not record.undrawn and not is_there,
        "verdicts": [
            _verdict(record, name, entries[name].get("unit", "")) for name in record.scores if name in entries
        ],
    }


def _verdict(record: Record, metric: str, unit: str) -> dict[str, Any]:
    """What a metric says of a picture; only shares have clauses that are kept or broken."""
    clauses = record.clauses.get(metric, {}) if unit == SHARE else {}
    detail = record.detail.get(metric, {})
    return {
        "metric": metric,
        "unit": unit,
        "score": record.scores[metric],
        "clauses": dict(clauses),
        "wrong": {name: said for name, said in detail.items() if name in clauses and isinstance(said, str)},
        "reason": record.reasons.get(metric, ""),
    }
