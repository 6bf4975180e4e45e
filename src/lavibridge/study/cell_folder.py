"""The folder of a cell: its progress, and whether its content still matches the study.

    OUT/CONDITION/seed-S/  cell.json             the study's recipe, and the suites that are measured
                           recipe.yaml ...       written by `lavi train`
                           evaluation/SUITE/     written by `lavi evaluate`

A suite counts as measured if cell.json lists it with the study's current options and its results are of the
cell's current bridge. Before skipping or reusing a cell, the study also compares content: data and models
(`changed_cell_inputs`), prompts and metrics (`is_cell_outdated`).
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
from lavibridge.evaluation.suite import open_suite_metrics, open_suite_prompts, read_suite
from lavibridge.recipes.recipe import Recipe, make_recipe
from lavibridge.recipes.recipe_text import read_recipe_yaml
from lavibridge.study.cells import Cell
from lavibridge.study.study import StudySuite
from lavibridge.training import run_folder
from lavibridge.training.checkpoints.checkpoint import is_run_trained
from lavibridge.training.checkpoints.run_fingerprint import section_fingerprint
from lavibridge.training.run_folder import RECIPE_FILE, flatten_recipe, refuse_recipe_changes

CELL_FILE = "cell.json"
_IGNORED_FIELDS = (
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
"""Prefixes of the fields that change where and how fast a cell runs, not its result."""


def check_cell_folder(folder: Path, cell: Cell) -> None:
    """Raise RunError with every difference if the folder holds another recipe than the cell's."""
    refuse_recipe_changes(folder, cell_folder_differences(folder, cell))


def cell_folder_differences(folder: Path, cell: Cell) -> list[str]:
    """The differences between a folder's recipe and a cell's, as sentences; empty without a recipe."""
    kept = _kept(folder, cell)
    if kept is None:
        return []
    now = _flat_recipe(cell)
    return [
        f"{key} was {kept.get(key)!r}, is {now.get(key)!r}"
        for key in sorted(kept.keys() | now.keys())
        if kept.get(key) != now.get(key) and not key.startswith(_IGNORED_FIELDS)
    ]


def begin_cell_folder(folder: Path, cell: Cell, study: str) -> None:
    """Record the cell of a folder. Raises RunError if the folder holds another one."""
    check_cell_folder(folder, cell)
    if not (folder / CELL_FILE).is_file():
        write_json(
            folder / CELL_FILE,
            {
                "study": study,
                "condition": cell.condition,
                "seed": cell.seed,
                "native": cell.native,
                "vision": _vision(cell) if cell.native else None,
                "recipe": _flat_recipe(cell),
                "suites": {},
            },
        )


def is_cell_measured(folder: Path, key: str, use: StudySuite) -> bool:
    """Whether the suite is done with the study's current options and the cell's current bridge."""
    path = folder / CELL_FILE
    if not path.is_file() or read_json(path)["suites"].get(key) != use.model_dump(mode="json"):
        return False
    try:
        return matches_run(folder, read_results(suite_folder(folder, key)))
    except RunError:
        return False


def changed_cell_inputs(folder: Path, cell: Cell) -> list[str]:
    """Describe the data and models that changed since a cell was finished, in one sentence each."""
    if not cell.native:
        return (
            run_folder.changed_run_inputs(folder, cell.recipe)
            if is_run_trained(folder, cell.recipe.training)
            else []
        )
    if not (folder / CELL_FILE).is_file():
        return []
    kept, now = read_json(folder / CELL_FILE).get("vision"), _vision(cell)
    return [] if kept == now else [f"the vision model was {kept or 'not recorded'}, is {now}"]


def is_cell_outdated(folder: Path, key: str, use: StudySuite) -> bool:
    """Whether the prompts or metrics of a measured suite have changed."""
    results = read_results(suite_folder(folder, key))
    plan = read_suite(use.suite)
    source = open_suite_prompts(plan.prompts, use.prompts)
    current = {"suite": plan.name, "version": plan.version, "prompts": source.card()}
    if json.loads(json.dumps(current)) != {name: results.get(name) for name in current}:
        return True
    categories = use.categories or source.categories
    metrics = open_suite_metrics(plan.metrics, use.metrics, source.categories)
    return any(
        card_hash(_measured_by(metric)) != card_hash(_without_count(results["metrics"].get(metric.name)))
        for metric in metrics
        if any(metric.applies_to(category) for category in categories)
    )


def mark_cell_measured(folder: Path, key: str, use: StudySuite) -> None:
    """Record that the suite is measured."""
    found = read_json(folder / CELL_FILE)
    write_json(folder / CELL_FILE, {**found, "suites": {**found["suites"], key: use.model_dump(mode="json")}})


def suite_folder(folder: Path, key: str) -> Path:
    """The folder of a suite's results."""
    return folder / "evaluation" / key


def _kept(folder: Path, cell: Cell) -> dict[str, Any] | None:
    """The recipe in a folder, by dotted path; None if there is none.

    A stopped run has only the recipe of `lavi train`, which names models by path; `lavi train` checks their
    content when it resumes.
    """
    if (folder / CELL_FILE).is_file():
        found = read_json(folder / CELL_FILE)
        if not isinstance(found, dict) or not isinstance(found.get("recipe"), dict):
            raise RunError(f"{folder / CELL_FILE} is damaged: delete the folder to run the cell again")
        return _completed(found["recipe"])
    if (folder / RECIPE_FILE).is_file():
        return {**_flat(make_recipe(read_recipe_yaml(folder / RECIPE_FILE))), **cell.source_names}
    return None


def _vision(cell: Cell) -> str:
    return section_fingerprint(cell.recipe.vision.model_dump())


def _measured_by(metric: Metric) -> dict[str, Any]:
    """A metric's card in the form of results.json."""
    if isinstance(metric, SetMetric):
        return {**metric.card(), "reference": reference_hash(metric.config.reference)}
    return metric.card()


def _without_count(found: Mapping[str, Any] | None) -> dict[str, Any]:
    """The card in results.json without `n`, which the reference's hash determines."""
    return {} if found is None else {name: each for name, each in found["card"].items() if name != "n"}


def _completed(kept: dict[str, Any]) -> dict[str, Any]:
    """A recipe of an earlier version, completed with the defaults of newer fields."""
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
    except RecipeError:  # fields that no longer exist; the differences name them
        return kept


def _flat_recipe(cell: Cell) -> dict[str, Any]:
    return {**_flat(cell.recipe), **cell.source_names, "native": cell.native}


def _flat(recipe: Recipe) -> dict[str, Any]:
    return {**flatten_recipe(recipe.model_dump(mode="json")), "native": False}
