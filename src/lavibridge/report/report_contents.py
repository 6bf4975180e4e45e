"""Builds report.json, the whole content of a report as one value; the page (report/page.py) only shows it.

{format, title, notes, runs, recipe_differences, tables, differences, side_by_side, extremes, disputed,
 curves, samples, cards}
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lavibridge.core.errors import RunError
from lavibridge.report.curves import make_curves
from lavibridge.report.evaluations import find_evaluations, group_evaluations
from lavibridge.report.example_selection import (
    select_disputed_examples,
    select_examples_side_by_side,
    select_extreme_examples,
)
from lavibridge.report.formatting import join_names
from lavibridge.report.metric_cards import differences_between_recipes, metric_cards
from lavibridge.report.model_card import make_model_card
from lavibridge.report.run_record import RunRecord, read_run
from lavibridge.report.run_summary import describe_run
from lavibridge.report.score_tables import score_differences, score_tables

_FORMAT = 2
"""Increases whenever readers of an earlier format would misread the file."""

MAX_SHOWN_PREVIEWS = 12
"""Maximum previews per run, spread evenly over training."""


def read_report_runs(folders: Sequence[Path]) -> list[RunRecord]:
    """Read the runs and give each a unique name.

    Raises RunError if there are none, if two are the same, or if a folder is not a run.
    """
    if not folders:
        raise RunError("give at least one run folder to report on")
    resolved = [folder.resolve() for folder in folders]
    for place, folder in enumerate(resolved):
        if folder in resolved[:place]:
            raise RunError(f"{folders[place]} appears twice: give each run once")
    runs = [read_run(folder) for folder in folders]
    return [replace(run, name=name) for run, name in zip(runs, _names(resolved), strict=True)]


def make_report_contents(runs: Sequence[RunRecord]) -> dict[str, Any]:
    """Build the value of report.json. Raises RunError, which names the file, if one is damaged."""
    evaluations, notes = find_evaluations(runs)
    found, apart = group_evaluations(evaluations)
    tables = score_tables(found)
    paired, unpaired = score_differences(found)
    pictures = {
        "side_by_side": select_examples_side_by_side(found),
        "extremes": select_extreme_examples(found),
        "disputed": select_disputed_examples(found),
    }
    summaries = [describe_run(run) for run in runs]
    for number, run in enumerate(summaries):
        run["model_card"] = make_model_card(run, number, tables)
    return {
        "format": _FORMAT,
        "title": join_names([run.name for run in runs]),
        "notes": [*_unfinished(summaries), *notes, *apart, *unpaired, *_missing(pictures)],
        "runs": summaries,
        "recipe_differences": differences_between_recipes(runs) if len(runs) > 1 else [],
        "tables": tables,
        "differences": paired,
        **pictures,
        "curves": make_curves(runs),
        "samples": [_samples(run) for run in runs],
        "cards": metric_cards(found),
    }


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' names, with as many parent folders as it takes to make them unique."""
    for depth in range(1, max(len(folder.parts) for folder in folders) + 1):
        names = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(names)) == len(names):
            break
    return names


def _unfinished(runs: Sequence[dict[str, Any]]) -> list[str]:
    return [f"{run['name']} is {run['state']}" for run in runs if not run["is_finished"]]


def _samples(run: RunRecord) -> dict[str, Any]:
    """The previews to show, and the contact sheet."""
    count = len(run.samples)
    places: Sequence[int] = range(count)
    if count > MAX_SHOWN_PREVIEWS:
        places = [
            round(place * (count - 1) / (MAX_SHOWN_PREVIEWS - 1)) for place in range(MAX_SHOWN_PREVIEWS)
        ]
    return {
        "sheet": run.sheet.relative_to(run.folder).as_posix() if run.sheet else None,
        "shown": [run.samples[place].relative_to(run.folder).as_posix() for place in places],
        "of": count,
    }


def _missing(pictures: dict[str, list[dict[str, Any]]]) -> list[str]:
    cases = [
        case
        for kind, names in (
            ("side_by_side", ("rows",)),
            ("extremes", ("worst", "best")),
            ("disputed", ("first_ahead", "second_ahead")),
        )
        for each in pictures[kind]
        for name in names
        for case in each[name]
    ]
    gone = sorted({(one["run"], one["file"]) for case in cases for one in case["shown"] if one["missing"]})
    if not gone:
        return []
    return [
        f"{len(gone)} images are missing, such as {gone[0][1]}. Their scores come from the records; run the "
        "same evaluation again to generate them"
    ]
