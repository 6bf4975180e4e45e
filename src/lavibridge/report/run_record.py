"""Reads a run folder into one value: missing files are empty values, damaged files are errors.

RUN/ recipe.yaml  environment.json  align.jsonl  log.jsonl  samples/**.png  contact_sheet.png  results.json
     checkpoints/step-N/          evaluation/SUITE/ and conditions/NAME/ see report/evaluations.py
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lavibridge.bridge.saved_bridge import saved_checkpoints
from lavibridge.core.errors import LaviError, RecipeError, RunError
from lavibridge.core.files import parse_json, read_json, split_json_lines
from lavibridge.core.yaml_text import read_yaml_file


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The contents of a run folder."""

    name: str
    folder: Path
    recipe: dict[str, Any]
    environment: dict[str, Any]
    rows: tuple[dict[str, Any], ...]
    """One mapping per logged step of log.jsonl, in order of step."""
    validations: tuple[dict[str, Any], ...]
    """The rows of log.jsonl with a measurement on held-out images."""
    alignment: tuple[dict[str, Any], ...]
    """The rows of align.jsonl; empty for a run without alignment."""
    results: dict[str, Any]
    """The results of `lavi quickstart`."""
    sheet: Path | None
    samples: tuple[Path, ...]
    rejected: int
    """Number of unreadable pictures in the user's data."""
    part_sizes: dict[str, int]
    """Bytes of each saved part of the newest checkpoint: connector, language_lora, vision_lora."""
    fingerprint: dict[str, Any]
    """Hashes of the data and base models, from the newest checkpoint."""


def read_run(folder: Path) -> RunRecord:
    """Read the folder of a finished or unfinished run. Raises RunError if it is not a run or is damaged."""
    if not folder.is_dir():
        raise RunError(f"{folder} is not a folder: give the folder of `lavi train` or `lavi quickstart`")
    if not (folder / "recipe.yaml").is_file():
        raise RunError(
            f"{folder} is not a run folder: it has no recipe.yaml; give the folder of `lavi train`"
        )
    try:
        recipe = read_yaml_file(folder / "recipe.yaml")
    except RecipeError as error:
        raise RunError(f"{folder / 'recipe.yaml'} is damaged: {error}") from None
    sheet = folder / "contact_sheet.png"
    newest = next(reversed(saved_checkpoints(folder)), None)
    return RunRecord(
        name=folder.resolve().name,
        folder=folder,
        recipe=recipe if isinstance(recipe, dict) else {},
        environment=read_run_record_if_present(folder / "environment.json"),
        rows=_log(folder / "log.jsonl", "loss"),
        validations=_log(folder / "log.jsonl", "validation"),
        alignment=_log(folder / "align.jsonl", "step"),
        results=read_run_record_if_present(folder / "results.json"),
        sheet=sheet if sheet.is_file() else None,
        samples=tuple(sorted((folder / "samples").rglob("*.png"), key=_natural)),
        rejected=len(_lines(folder / "rejected.jsonl")),
        part_sizes=_sizes(newest) if newest else {},
        fingerprint=read_run_record_if_present(newest / "state.json").get("basis") or {} if newest else {},
    )


def read_run_record_if_present(path: Path) -> dict[str, Any]:
    """Read the object in a JSON file; {} if there is no file. Raises RunError if it is damaged."""
    if not path.is_file():
        return {}
    try:
        value = read_json(path)
    except LaviError as error:
        raise RunError(f"{path} is damaged: {error}") from None
    if not isinstance(value, dict):
        raise RunError(f"{path} must hold a JSON object, found {type(value).__name__}")
    return value


def _lines(path: Path) -> list[str]:
    """Read the lines of a log. A crash may cut the last one inside a letter."""
    return split_json_lines(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else []


def _log(path: Path, key: str) -> tuple[dict[str, Any], ...]:
    """Read the rows of a log that have a key, by step. If a resumed run repeats a step, the later row counts.

    Ignores an incomplete last line, as a crash leaves it; an earlier damaged line is an error.
    """
    lines = _lines(path)
    rows: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            row = parse_json(line, f"{path}, line {number}")
        except LaviError as error:
            if number == len(lines):
                break
            raise RunError(str(error)) from None
        if isinstance(row, dict) and isinstance(row.get("step"), int) and key in row:
            rows[row["step"]] = row
    return tuple(rows[step] for step in sorted(rows))


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort step-2 before step-10."""
    return [
        (int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", str(path)) if part
    ]


def _sizes(checkpoint: Path) -> dict[str, int]:
    """Bytes on disk of each part of a checkpoint."""
    sizes = {}
    for part in ("language_lora", "connector", "vision_lora"):
        files = (checkpoint / "bridge" / part).rglob("*")
        size = sum(file.stat().st_size for file in files if file.is_file())
        if size:
            sizes[part] = size
    return sizes
