"""The folder of a cell: what is done in it, and whether it is the study's.

    OUT/CONDITION/seed-S/  cell.json             the recipe as the study says it; the suites that are measured
                           recipe.yaml ...       what `lavi train` writes
                           evaluation/SUITE/     what `lavi evaluate` writes

A suite counts as measured when cell.json says so, with the options that the study has now, and what lies
there is of the bridge that the cell holds. Before a cell is left as it is, or taken over by another study, it
is also compared by content: data and models (`moved`), prompts and metrics (`outdated`).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lavibridge.core.errors import RecipeError, RunError
from lavibridge.core.files import read_json, write_json
from lavibridge.core.identity import card_hash
from lavibridge.evaluation.metrics.base import Metric, SetMetric
from lavibridge.evaluation.provenance import matches_run, read_results
from lavibridge.evaluation.sets.reference import reference_hash
from lavibridge.evaluation.suite import open_metrics, open_prompts, read_suite
from lavibridge.recipes.read import read_yaml
from lavibridge.recipes.recipe import Recipe, make_recipe
from lavibridge.study.cells import Cell
from lavibridge.study.study import SuiteUse
from lavibridge.training import run
from lavibridge.training.checkpoints.checkpoint import is_trained
from lavibridge.training.checkpoints.run_fingerprint import section_identity
from lavibridge.training.run import RECIPE, flat, refuse_changes

CELL = "cell.json"
NO_MATTER = (
    "data.index",
    "data.path",
    "data.root",
    "preview.",
    "training.attention",
    "training.cache",
    "training.checkpoint_every",
    "training.compile",
    "training.device",
    "training.feature_cache_gb",
    "training.keep_checkpoints",
    "training.latent_cache_gb",
    "training.preview_every",
    "training.sharding",
    "training.trackers",
    "training.validation",
    "training.workers",
)
"""Beginnings of the fields that change where and how fast a cell is made, not what it is."""


def check_cell(folder: Path, cell: Cell) -> None:
    """RunError with every difference where the folder holds another recipe than the study's cell."""
    refuse_changes(folder, differences(folder, cell))


def differences(folder: Path, cell: Cell) -> list[str]:
    """How the recipe that a folder holds differs from a cell's, as sentences; none where it holds none."""
    kept = _kept(folder, cell)
    if kept is None:
        return []
    now = _said(cell)
    return [
        f"{key} was {kept.get(key)!r}, is {now.get(key)!r}"
        for key in sorted(kept.keys() | now.keys())
        if kept.get(key) != now.get(key) and not key.startswith(NO_MATTER)
    ]


def begin_cell(folder: Path, cell: Cell, study: str) -> None:
    """Note down which cell this is; RunError where it is another."""
    check_cell(folder, cell)
    if not (folder / CELL).is_file():
        write_json(
            folder / CELL,
            {
                "study": study,
                "condition": cell.condition,
                "seed": cell.seed,
                "native": cell.native,
                "vision": _vision(cell) if cell.native else None,
                "recipe": _said(cell),
                "suites": {},
            },
        )


def is_measured(folder: Path, key: str, use: SuiteUse) -> bool:
    """Whether the suite is done, as the study asks for it now, by the bridge that the cell holds."""
    path = folder / CELL
    if not path.is_file() or read_json(path)["suites"].get(key) != use.model_dump(mode="json"):
        return False
    try:
        return matches_run(folder, read_results(evaluation(folder, key)))
    except RunError:
        return False


def changed_inputs(folder: Path, cell: Cell) -> list[str]:
    """What a finished cell stands on that is no longer as it was: data and models, a sentence each."""
    if not cell.native:
        return run.changed_inputs(folder, cell.recipe) if is_trained(folder, cell.recipe.training) else []
    if not (folder / CELL).is_file():
        return []
    kept, now = read_json(folder / CELL).get("vision"), _vision(cell)
    return [] if kept == now else [f"the vision model was {kept or 'not noted'}, is {now}"]


def is_suite_outdated(folder: Path, key: str, use: SuiteUse) -> bool:
    """Whether a measured suite has other prompts now, or other metrics."""
    results = read_results(evaluation(folder, key))
    plan = read_suite(use.suite)
    source = open_prompts(plan.prompts, use.prompts)
    asked = {"suite": plan.name, "version": plan.version, "prompts": source.card()}
    if json.loads(json.dumps(asked)) != {name: results.get(name) for name in asked}:
        return True
    judged = use.categories or source.categories
    metrics = open_metrics(plan.metrics, use.metrics, source.categories)
    return any(
        card_hash(_measured_by(metric)) != card_hash(_without_count(results["metrics"].get(metric.name)))
        for metric in metrics
        if any(metric.applies_to(category) for category in judged)
    )


def mark_measured(folder: Path, key: str, use: SuiteUse) -> None:
    """Note down that the suite is done."""
    found = read_json(folder / CELL)
    write_json(folder / CELL, {**found, "suites": {**found["suites"], key: use.model_dump(mode="json")}})


def evaluation(folder: Path, key: str) -> Path:
    """Where the results of a suite lie."""
    return folder / "evaluation" / key


def _kept(folder: Path, cell: Cell) -> dict[str, Any] | None:
    """The recipe that a folder holds, by dotted path; None where it holds none.

    Of a run that was stopped there is only `lavi train`'s own, which names models by where they lie; that
    they are the same ones it finds out when it goes on.
    """
    if (folder / CELL).is_file():
        found = read_json(folder / CELL)
        if not isinstance(found, dict) or not isinstance(found.get("recipe"), dict):
            raise RunError(f"{folder / CELL} is damaged: delete the folder, and the cell is made again")
        return _completed(found["recipe"])
    if (folder / RECIPE).is_file():
        return {**_flat(make_recipe(read_yaml(folder / RECIPE))), **cell.said}
    return None


def _vision(cell: Cell) -> str:
    return section_identity(cell.recipe.vision.model_dump())


def _measured_by(metric: Metric) -> dict[str, Any]:
    """A metric's card as results hold it."""
    if isinstance(metric, SetMetric):
        return {**metric.card(), "reference": reference_hash(metric.config.reference)}
    return metric.card()


def _without_count(found: Mapping[str, Any] | None) -> dict[str, Any]:
    """The card of results; that a reference has so many pictures follows from which it is."""
    return {} if found is None else {name: each for name, each in found["card"].items() if name != "n"}


def _completed(kept: dict[str, Any]) -> dict[str, Any]:
    """A recipe of an earlier version with the defaults of what there was not then."""
    nested: dict[str, Any] = {}
    for path, value in kept.items():
        *above, key = path.split(".")
        place = nested
        for name in above:
            place = place.setdefault(name, {})
        place[key] = value
    native = nested.pop("native", False)
    try:
        return {**_flat(make_recipe(nested)), "native": native}
    except RecipeError:  # of what there is no more; the differences say which
        return kept


def _said(cell: Cell) -> dict[str, Any]:
    return {**_flat(cell.recipe), **cell.said, "native": cell.native}


def _flat(recipe: Recipe) -> dict[str, Any]:
    return {**flat(recipe.model_dump(mode="json")), "native": False}
