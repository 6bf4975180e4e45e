"""Reads benchmarks' files of JSON lines."""

from pathlib import Path
from typing import Any

from lavibridge.core.errors import DataError, LaviError
from lavibridge.core.files import parse_json
from lavibridge.evaluation.benchmark_files import read_benchmark_lines


def read_jsonl_objects(path: Path, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """Read one object per line. Raises DataError, which names the line, if one is invalid or lacks a key."""
    found: list[dict[str, Any]] = []
    for number, line in enumerate(read_benchmark_lines(path), 1):
        try:
            value = parse_json(line, f"{path}: line {number}")
        except LaviError as error:
            raise DataError(str(error)) from None
        lacking = [key for key in keys if not isinstance(value, dict) or key not in value]
        if lacking:
            raise DataError(
                f"{path}: line {number} must be an object with {', '.join(keys)}: it lacks {lacking[0]}"
            )
        found.append(value)
    return found
