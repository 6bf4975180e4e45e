"""Finds the evaluations of runs and groups those whose numbers are comparable.

    RUN/evaluation/SUITE/    written by `lavi evaluate`
    RUN/conditions/NAME/     written by `lavi quickstart`: the trained bridge and its baselines
    RUN/results.json         the quickstart's scores, if the folders are missing: no images, no pairs

The report shows only comparable numbers side by side: a group shares suite, version, prompts and seeds, and a
table (report/score_tables.py) also shares the metric's card. Scores of an earlier checkpoint appear under
that checkpoint's name, not as the run's own.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lavibridge.evaluation.compare import COMPARED_SETTINGS
from lavibridge.evaluation.provenance import matches_run, read_scored_records, results_fault
from lavibridge.evaluation.records import Record, RecordKey, read_records
from lavibridge.report.run_record import RunRecord, read_run_record_if_present

_ALONE = "this bridge"
"""The label of a report's only run."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One system's scores on one suite."""

    label: str
    """The label of its column."""
    run: int
    """Index of its run."""
    folder: Path | None
    """The folder of its records and images, if it exists."""
    place: str
    """That folder relative to the run folder."""
    is_own: bool
    """Whether it is of the run's own bridge, as opposed to a baseline."""
    results: Mapping[str, Any]

    @cached_property
    def records(self) -> Mapping[RecordKey, Record]:
        """The record of each picture, in the suite's order."""
        found = read_scored_records(self.folder, self.results).values() if self.folder else ()
        return {record.key: record for record in sorted(found, key=lambda record: record.file)}


@dataclass(frozen=True, kw_only=True)
class EvaluationGroup:
    """Evaluations with comparable numbers; the first belongs to the run that was named first."""

    suite: str
    version: int
    columns: tuple[Evaluation, ...]


def find_evaluations(runs: Sequence[RunRecord]) -> tuple[list[Evaluation], list[str]]:
    """Find all evaluations; also return notes on those that the report cannot show.

    Raises RunError for a damaged results.json.
    """
    found: list[Evaluation] = []
    notes: list[str] = []
    for number, run in enumerate(runs):
        own = run.name if len(runs) > 1 else _ALONE
        mine: list[Evaluation] = []
        for folder in sorted([*run.folder.glob("evaluation/*/"), *run.folder.glob("conditions/*/")]):
            place = folder.relative_to(run.folder).as_posix()
            results = read_run_record_if_present(folder / "results.json")
            if not results or (place.startswith("conditions/") and "compared" not in run.results):
                notes += _unfinished(run.name, folder, place)
            elif "metrics" not in results or "drawn_with" not in results:
                notes.append(f"{run.name}: an older version of lavibridge wrote {place}: evaluate again")
            elif fault := results_fault(results):
                notes.append(f"{run.name}: {place} is damaged (its {fault}): evaluate again")
            else:
                other = (
                    _compared_with(run, results)
                    if place.startswith("conditions/")
                    else _earlier(run, results)
                )
                mine.append(_evaluation(own, other, number, folder, place, results))
        mine.sort(key=lambda each: not each.is_own)
        mine = mine or _without_folders(run, number, own)
        if not mine:
            notes.append(f"{run.name} has no evaluation: run `lavi evaluate` to make one")
        found += mine
    return found, notes


def group_evaluations(evaluations: Sequence[Evaluation]) -> tuple[list[EvaluationGroup], list[str]]:
    """Groups of comparable evaluations, and notes on suites that are not comparable."""
    found: dict[str, list[Evaluation]] = {}
    for each in evaluations:
        shared = [each.results.get(name) for name in COMPARED_SETTINGS]
        found.setdefault(json.dumps([each.place.split("/")[0], *shared], sort_keys=True), []).append(each)
    notes = []
    first: dict[tuple[str, str], Evaluation] = {}
    for columns in found.values():
        one = columns[0]
        other = first.setdefault((one.place.split("/")[0], str(one.results["suite"])), one)
        if other is not one:
            notes.append(_apart(other, one))
    return [_group(columns) for columns in found.values()], notes


def _group(columns: Sequence[Evaluation]) -> EvaluationGroup:
    """Make the columns' labels unique: two evaluations of one run show their folders."""
    labels = [each.label for each in columns]
    return EvaluationGroup(
        suite=str(columns[0].results["suite"]),
        version=int(columns[0].results["version"]),
        columns=tuple(
            replace(each, label=f"{each.label} ({each.place})") if labels.count(each.label) > 1 else each
            for each in columns
        ),
    )


def _evaluation(
    own: str, other: str | None, run: int, folder: Path | None, place: str, results: Mapping[str, Any]
) -> Evaluation:
    label = own if other is None else other if own == _ALONE else f"{own}: {other}"
    return Evaluation(label=label, run=run, folder=folder, place=place, is_own=other is None, results=results)


def _compared_with(run: RunRecord, results: Mapping[str, Any]) -> str | None:
    """The baseline's name in `lavi quickstart`; None if the results are the bridge's own."""
    compared: Mapping[str, Any] = run.results.get("compared") or {}
    return next((name for name, other in compared.items() if other == results), _earlier(run, results))


def _earlier(run: RunRecord, results: Mapping[str, Any]) -> str | None:
    """A label for results of an earlier checkpoint; None if they are of the newest."""
    if matches_run(run.folder, results):
        return None
    bridge = results["bridge"]
    step = next((part for part in Path(bridge.get("folder", "")).parts if part.startswith("step-")), "")
    return f"another checkpoint ({step or bridge['sha256'][:8]})"


def _without_folders(run: RunRecord, number: int, own: str) -> list[Evaluation]:
    """Evaluations from results.json alone."""
    if "metrics" not in run.results:
        return []
    compared: Mapping[str, Any] = run.results.get("compared") or {}
    systems = [(_earlier(run, run.results), run.results), *compared.items()]
    return [_evaluation(own, name, number, None, "results.json", results) for name, results in systems]


def _unfinished(name: str, folder: Path, place: str) -> list[str]:
    if not any(folder.glob("records*.jsonl")):
        return []
    drawn = len(read_records(folder))
    return [
        f"{name}: {place} is unfinished ({drawn:,} images), so the report omits it: repeat the command to "
        "resume it"
    ]


def _apart(first: Evaluation, second: Evaluation) -> str:
    name = next(name for name in COMPARED_SETTINGS if first.results.get(name) != second.results.get(name))
    return (
        f"suite {first.results['suite']}: {first.label} and {second.label} are not comparable: "
        f"{name} is {first.results.get(name)} in the first and {second.results.get(name)} in the second: "
        "evaluate one of them again"
    )
