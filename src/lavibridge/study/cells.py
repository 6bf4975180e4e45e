"""From a study to its cells: one recipe for each condition and seed, always in the same order.

study's recipe -> study's `set` -> the condition's `set` -> training.seed        later changes win
cell            = CONDITION/seed-S                                               its name and its folder
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from lavibridge.core.config import did_you_mean, validate
from lavibridge.core.errors import RecipeError
from lavibridge.core.paths import at_home
from lavibridge.recipes.read import change, find_recipe, read_yaml
from lavibridge.recipes.recipe import Recipe, make_recipe
from lavibridge.study.shipped import shipped_studies
from lavibridge.study.study import Condition, Study


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A condition with a seed."""

    condition: str
    label: str
    seed: int
    recipe: Recipe
    native: bool
    """Whether nothing is trained: the image model under its own text encoder."""
    said: Mapping[str, str]
    """What the study calls the models that are read from elsewhere, by dotted path."""

    @property
    def name(self) -> str:
        """Also its folder below the study's."""
        return f"{self.condition}/seed-{self.seed}"


def load_study(name: str) -> Study:
    """A shipped study by name, or any by the path to its YAML file. RecipeError says what is wrong."""
    shipped = shipped_studies()
    path = shipped.get(name, at_home(name))
    if not path.is_file():
        raise RecipeError(
            f"there is no study '{name}'{did_you_mean(name, tuple(shipped))} "
            f"(shipped: {', '.join(shipped)}; or give the path to a YAML file)"
        )
    return validate(Study, _at_home(read_yaml(path), path.parent), path.name)


def expand(study: Study, out: Path, sources: Mapping[str, str] | None = None) -> tuple[Cell, ...]:
    """All cells, their recipes checked; RecipeError names the condition whose recipe is wrong.

    `sources` says where models lie that the study names otherwise: {hub id: folder}.
    """
    cells = []
    for condition in study.grid():
        content = _content(study, condition, out)
        said = _put_sources(content, sources or {})
        for seed in study.seeds:
            seeded = change(content, [f"training.seed={seed}"])
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
                    said=said,
                )
            )
    return tuple(cells)


def choose(cells: Sequence[Cell], only: Sequence[str]) -> tuple[Cell, ...]:
    """The cells that the patterns name (`t5-*`, `last/seed-0`); all where there are none."""
    chosen = tuple(cell for cell in cells if not only or any(_fits(cell, pattern) for pattern in only))
    for pattern in only:
        if not any(_fits(cell, pattern) for cell in cells):
            known = tuple(dict.fromkeys(cell.condition for cell in cells))
            raise RecipeError(
                f"--only: no cell is called '{pattern}'{did_you_mean(pattern, known)} (conditions: "
                f"{', '.join(known)}; a cell is CONDITION/seed-S; * stands for anything)"
            )
    return chosen


def setting(path: str, value: Any) -> str:
    """A change of a recipe as it is written on a command line."""
    # Escaped, as PyYAML writes U+0085 as a line break that it then reads as a space.
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6)
    return f"{path}={text.removesuffix(chr(10)).removesuffix('...').rstrip()}"


def _content(study: Study, condition: Condition, out: Path) -> dict[str, Any]:
    """The recipe of a condition as a mapping; the condition is a layer of its own, so that a kind that it
    changes empties what the study has set in that section."""
    try:
        content = read_yaml(find_recipe(condition.recipe or study.recipe))
        content = change(content, [setting(*pair) for pair in study.set.items()])
        if study.cache:
            content = change(content, [setting("training.cache.folder", str(out.absolute() / "cache"))])
        return change(content, [setting(*pair) for pair in condition.set.items()])
    except RecipeError as error:
        raise RecipeError(f"condition '{condition.name}': {error}") from None


def _put_sources(content: dict[str, Any], sources: Mapping[str, str]) -> dict[str, str]:
    """Name the models by where they lie; returns what they were called, by dotted path."""
    said = {}
    for section in ("language", "vision"):
        found = content.get(section)
        if isinstance(found, dict) and found.get("source") in sources:
            said[f"{section}.source"] = found["source"]
            content[section] = {**found, "source": sources[found["source"]]}
    return said


def _fits(cell: Cell, pattern: str) -> bool:
    return fnmatchcase(cell.name, pattern) or fnmatchcase(cell.condition, pattern)


def _at_home(content: dict[str, Any], home: Path) -> dict[str, Any]:
    """Paths of recipes and suites that lie beside the study's file, made whole."""

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
