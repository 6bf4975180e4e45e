"""The folder of a cell: what is done in it, and whether it is the study's.

    OUT/CONDITION/seed-S/  cell.json             the recipe as the study says it; the suites that are measured
                           recipe.yaml ...       what `lavi train` writes
                           evaluation/SUITE/     what `lavi evaluate` writes

A suite counts as measured when cell.json says so, with the options that the study has now.
"""

from pathlib import Path
from typing import Any

from lavibridge.core.errors import RecipeError, RunError
from lavibridge.core.files import read_json, write_json
from lavibridge.recipes.read import read_yaml
from lavibridge.recipes.recipe import Recipe, make_recipe
from lavibridge.study.cells import Cell
from lavibridge.study.study import SuiteUse
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
                "recipe": _said(cell),
                "suites": {},
            },
        )


def is_measured(folder: Path, key: str, use: SuiteUse) -> bool:
    """Whether the suite is done, as the study asks for it now."""
    path = folder / CELL
    return path.is_file() and read_json(path)["suites"].get(key) == use.model_dump(mode="json")


def note_measured(folder: Path, key: str, use: SuiteUse) -> None:
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
