"""Expands a study into cells: one recipe per condition and seed, in a fixed order.

study's recipe -> study's `set` -> the condition's `set` -> training.seed        later settings win
cell            = CONDITION/seed-S                                               its name and its folder
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from lavibridge.core.config import validate_config
from lavibridge.core.errors import RecipeError, did_you_mean
from lavibridge.core.paths import expand_path
from lavibridge.recipes.recipe import Recipe, make_recipe
from lavibridge.recipes.recipe_text import change_recipe_text, find_recipe, read_recipe_yaml
from lavibridge.study.shipped import shipped_studies
from lavibridge.study.study import Study, StudyCondition


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One condition with one seed."""

    condition: str
    label: str
    seed: int
    recipe: Recipe
    native: bool
    """Whether to evaluate the vision model with its own text encoder, without training."""
    source_names: Mapping[str, str]
    """The study's names of the models that `sources` redirects, by dotted path."""

    @property
    def name(self) -> str:
        """Also its path relative to the study's folder."""
        return f"{self.condition}/seed-{self.seed}"


def load_study(name: str) -> Study:
    """Load a study: a shipped one by name, or any by its path. Raises RecipeError if it is invalid."""
    shipped = shipped_studies()
    path = shipped.get(name, expand_path(name))
    if not path.is_file():
        raise RecipeError(
            f"there is no study '{name}'{did_you_mean(name, tuple(shipped))} "
            f"(choose from {', '.join(shipped)}, or give the path to a YAML file)"
        )
    return validate_config(Study, _at_home(read_recipe_yaml(path), path.parent), path.name)


def expand_cells(study: Study, out: Path, sources: Mapping[str, str] | None = None) -> tuple[Cell, ...]:
    """Make all cells with validated recipes. Raises RecipeError if the recipe of a condition is invalid.

    `sources` redirects models to local folders: {hub id: folder}.
    """
    cells = []
    for condition in study.grid():
        content = _content(study, condition, out)
        source_names = _redirect_sources(content, sources or {})
        for seed in study.seeds:
            seeded = change_recipe_text(content, [f"training.seed={seed}"])
            try:
                recipe = make_recipe(seeded)
            except RecipeError as error:
                raise RecipeError(f"condition '{condition.name}': {error}") from None
            cells.append(
                Cell(
                    condition=condition.name,
                    label=condition.label or condition.name,
                    seed=seed,
                    recipe=recipe,
                    native=condition.native,
                    source_names=source_names,
                )
            )
    return tuple(cells)


def choose_cells(cells: Sequence[Cell], only: Sequence[str]) -> tuple[Cell, ...]:
    """The cells that match the patterns (`t5-*`, `last/seed-0`); all if there are no patterns."""
    chosen = tuple(cell for cell in cells if not only or any(_fits(cell, pattern) for pattern in only))
    for pattern in only:
        if not any(_fits(cell, pattern) for cell in cells):
            known = tuple(dict.fromkeys(cell.condition for cell in cells))
            raise RecipeError(
                f"--only: no cell matches '{pattern}'{did_you_mean(pattern, known)} (conditions: "
                f"{', '.join(known)}; a cell is CONDITION/seed-S; * matches anything)"
            )
    return chosen


def cell_setting(path: str, value: Any) -> str:
    """Format a recipe setting as on a command line."""
    # Escapes U+0085, which PyYAML would write as a line break and read back as a space.
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6)
    return f"{path}={text.removesuffix(chr(10)).removesuffix('...').rstrip()}"


def _content(study: Study, condition: StudyCondition, out: Path) -> dict[str, Any]:
    """A condition's recipe as a mapping. A condition that sets a new kind clears the study's settings of that
    section."""
    try:
        content = read_recipe_yaml(find_recipe(condition.recipe or study.recipe))
        content = change_recipe_text(content, [cell_setting(*pair) for pair in study.set.items()])
        if study.cache:
            content = change_recipe_text(
                content, [cell_setting("training.cache.folder", str(out.absolute() / "cache"))]
            )
        return change_recipe_text(content, [cell_setting(*pair) for pair in condition.set.items()])
    except RecipeError as error:
        raise RecipeError(f"condition '{condition.name}': {error}") from None


def _redirect_sources(content: dict[str, Any], sources: Mapping[str, str]) -> dict[str, str]:
    """Redirect the models to their folders; returns their original names by dotted path."""
    source_names = {}
    for section in ("language", "vision"):
        found = content.get(section)
        if isinstance(found, dict) and found.get("source") in sources:
            source_names[f"{section}.source"] = found["source"]
            content[section] = {**found, "source": sources[found["source"]]}
    return source_names


def _fits(cell: Cell, pattern: str) -> bool:
    return fnmatchcase(cell.name, pattern) or fnmatchcase(cell.condition, pattern)


def _at_home(content: dict[str, Any], home: Path) -> dict[str, Any]:
    """Make paths of recipes and suites absolute; they are relative to the study's file."""

    def whole(holder: Any, key: str) -> Any:
        if not isinstance(holder, dict) or not isinstance(holder.get(key), str):
            return holder
        path = home / holder[key]
        return {**holder, key: str(path.absolute())} if path.is_file() else holder

    def each(values: Any) -> Any:
        return [whole(value, "recipe") for value in values] if isinstance(values, list) else values

    found = dict(whole(content, "recipe"))
    if isinstance(found.get("suites"), dict):
        found["suites"] = {key: whole(value, "suite") for key, value in found["suites"].items()}
    if isinstance(found.get("axes"), dict):
        found["axes"] = {key: each(values) for key, values in found["axes"].items()}
    return found | ({"conditions": each(found["conditions"])} if "conditions" in found else {})
