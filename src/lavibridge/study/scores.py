"""Reads the scores of finished cells: one number per row, condition, seed and prompt.

Counts only the images that the study defines, so that extra measurements in a folder have no effect and two
conditions always share their prompts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lavibridge.core.errors import RunError
from lavibridge.evaluation.base import Task
from lavibridge.evaluation.provenance import read_results, read_scored_records
from lavibridge.evaluation.records import Record, RecordKey
from lavibridge.evaluation.suite import open_suite_prompts, read_suite
from lavibridge.evaluation.tasks import make_tasks
from lavibridge.study.cell_folder import check_cell_folder, is_cell_measured, suite_folder
from lavibridge.study.cells import Cell
from lavibridge.study.intervals import ScoreMatrix
from lavibridge.study.study import Study, StudyRow, StudySuite


@dataclass(frozen=True, kw_only=True)
class CellScores:
    """One cell's results on one suite."""

    results: Mapping[str, Any]
    records: Mapping[RecordKey, Record]
    tasks: tuple[Task, ...]

    def metric(self, row: StudyRow) -> Mapping[str, Any]:
        """Return the row's metric in results.json. Raises RunError if it was not measured."""
        found: Mapping[str, Any] = self.results["metrics"]
        if row.metric not in found:
            raise RunError(
                f"row '{row.name}': the suite '{row.suite}' has no metric '{row.metric}' (it has "
                f"{', '.join(found)}); name it in the study's `metrics`, or change the row"
            )
        return dict(found[row.metric])


FinishedScores = Mapping[tuple[str, int], Mapping[str, CellScores]]
"""By condition and seed, then by suite."""


def read_finished_scores(study: Study, cells: Sequence[Cell], out: Path) -> FinishedScores:
    """Read the finished suites of all cells. Raises RunError if a folder holds another recipe."""
    tasks = {
        (key, seed): _tasks(use, seed)
        for key, use in study.suites.items()
        for seed in study.seeds
        if any(is_cell_measured(out / cell.name, key, use) for cell in cells if cell.seed == seed)
    }
    found = {}
    for cell in cells:
        check_cell_folder(out / cell.name, cell)
        found[cell.condition, cell.seed] = {
            key: _read(suite_folder(out / cell.name, key), tasks[key, cell.seed])
            for key, use in study.suites.items()
            if is_cell_measured(out / cell.name, key, use)
        }
    for key in study.suites:
        _check_alike(key, {name: by_suite[key] for name, by_suite in found.items() if key in by_suite})
    return found


def _check_alike(key: str, measured: Mapping[tuple[str, int], CellScores]) -> None:
    """Raise RunError if cells differ in prompts or metrics, so that their scores cannot be paired."""
    first: tuple[tuple[str, int], dict[str, Any]] | None = None
    for cell, each in measured.items():
        cards = {name: entry["card"] for name, entry in each.results["metrics"].items()}
        now = {"version": each.results["version"], "prompts": each.results["prompts"], **cards}
        first = first or (cell, now)
        differing = [name for name in {**first[1], **now} if first[1].get(name) != now.get(name)]
        if differing:
            one, other = (f"{condition}/seed-{seed}" for condition, seed in (first[0], cell))
            raise RunError(
                f"{one} and {other} cannot share a table: {', '.join(differing)} of the suite '{key}' "
                "changed between them; run the study again to update its measurements"
            )


def scores_of(
    row: StudyRow, condition: str, seeds: Sequence[int], finished: FinishedScores
) -> ScoreMatrix | None:
    """A row's score for each seed and prompt, with NaN for unfinished seeds; None if no seed is finished or
    the metric only scores sets of pictures."""
    by_seed: list[dict[tuple[str, str], float]] = []
    for seed in seeds:
        measured = finished.get((condition, seed), {}).get(row.suite)
        is_of_pictures = measured is not None and "all" in measured.metric(row)
        by_seed.append(_by_prompt(row, measured) if measured is not None and is_of_pictures else {})
    if not any(by_seed):
        return None
    prompts = list(dict.fromkeys(prompt for each in by_seed for prompt in each))
    return np.array([[each.get(prompt, math.nan) for prompt in prompts] for each in by_seed])


def set_scores_of(
    row: StudyRow, condition: str, seeds: Sequence[int], finished: FinishedScores
) -> dict[int, Mapping[str, Any]]:
    """The estimate of a set metric, such as FID, for each finished seed."""
    found = {}
    for seed in seeds:
        measured = finished.get((condition, seed), {}).get(row.suite)
        totals = {} if measured is None else measured.metric(row).get("totals") or {}
        if totals:
            found[seed] = totals.get(row.clause or row.metric) or next(iter(totals.values()))
    return found


def unit_of_scores(row: StudyRow, finished: FinishedScores) -> str:
    """`share`, or nothing."""
    for by_suite in finished.values():
        if row.suite in by_suite:
            return str(by_suite[row.suite].metric(row)["unit"])
    return ""


def _tasks(use: StudySuite, seed: int) -> tuple[Task, ...]:
    plan = read_suite(use.suite)
    source = open_suite_prompts(plan.prompts, use.prompts)
    return tuple(make_tasks(plan, source, use.categories, use.limit, seed))


def _read(folder: Path, tasks: tuple[Task, ...]) -> CellScores:
    results = read_results(folder)
    records = read_scored_records(folder, results)
    lost = sum(task.key not in records for task in tasks)
    if lost:
        raise RunError(
            f"{folder} lacks {lost} of {len(tasks)} images that cell.json lists: delete the cell's cell.json "
            "to measure the suite again"
        )
    return CellScores(results=results, records=records, tasks=tasks)


def _by_prompt(row: StudyRow, measured: CellScores) -> dict[tuple[str, str], float]:
    """The mean score of each prompt's pictures; NaN if none was scored."""
    kept: dict[tuple[str, str], list[float]] = {}
    for task in measured.tasks:
        if row.categories is not None and task.category not in row.categories:
            continue
        record = measured.records[task.key]
        if row.metric in record.scores:
            values = _values(row, record)
            if values is not None:
                kept.setdefault((task.category, task.prompt), []).extend(values)
    return {
        prompt: math.fsum(values) / len(values) if values else math.nan for prompt, values in kept.items()
    }


def _values(row: StudyRow, record: Record) -> list[float] | None:
    """The row's values for a picture: [] if it was not scored, None if the row does not apply."""
    if record.undrawn:
        return []
    if row.clause is not None:
        value = record.clauses[row.metric].get(row.clause)
        return None if value is None else list(value) if isinstance(value, list) else [float(value)]
    score = record.scores[row.metric]
    return [] if score is None else [float(score)]
