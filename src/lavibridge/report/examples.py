"""Describes one prompt with each system's image of it, and every metric's score of each image.

example = {category, prompt, seed, shown: [{by, run, file, undrawn, missing, scores}]}
score = {metric, unit, score, clauses: {name: value}, wrong: {name: sentence}, reason}
"""

from collections.abc import Sequence
from typing import Any

from lavibridge.core.errors import DataError, RunError
from lavibridge.evaluation.generated_images import check_generated_image
from lavibridge.evaluation.records import Record, RecordKey
from lavibridge.report.evaluations import Evaluation
from lavibridge.report.formatting import SHARE_UNIT


def make_example(key: RecordKey, columns: Sequence[Evaluation]) -> dict[str, Any]:
    """Describe one prompt and seed, with each evaluation's image."""
    category, prompt, seed = key
    shown = [_displayed(each, each.records[key]) for each in columns]
    return {"category": category, "prompt": prompt, "seed": seed, "shown": shown}


def _displayed(evaluation: Evaluation, record: Record) -> dict[str, Any]:
    assert evaluation.folder is not None  # without a folder there are no records
    entries = evaluation.results["metrics"]
    is_there = (evaluation.folder / record.file).is_file()
    if is_there:
        try:
            check_generated_image(evaluation.folder, record)
        except DataError as error:
            raise RunError(str(error)) from None
    return {
        "by": evaluation.label,
        "run": evaluation.run,
        "file": f"{evaluation.place}/{record.file}",
        "undrawn": record.undrawn,
        "missing": not record.undrawn and not is_there,
        "scores": [
            _score(record, name, entries[name].get("unit", "")) for name in record.scores if name in entries
        ],
    }


def _score(record: Record, metric: str, unit: str) -> dict[str, Any]:
    """A metric's score of a picture; only shares have clauses that are satisfied or not."""
    clauses = record.clauses.get(metric, {}) if unit == SHARE_UNIT else {}
    detail = record.detail.get(metric, {})
    return {
        "metric": metric,
        "unit": unit,
        "score": record.scores[metric],
        "clauses": dict(clauses),
        "wrong": {name: text for name, text in detail.items() if name in clauses and isinstance(text, str)},
        "reason": record.reasons.get(metric, ""),
    }
