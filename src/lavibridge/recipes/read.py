"""Recipe text to mapping: YAML without duplicate keys, and `key.path=value` changes on top.

training.steps=200              one field
language={source: mini-llama}   a whole section, as YAML
data.kind=tsv                   another kind has other fields: the section starts empty, later changes fill it
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lavibridge.core.config import did_you_mean
from lavibridge.core.errors import RecipeError
from lavibridge.core.yaml_text import parse_yaml, read_yaml_file

FOLDER = Path(__file__).parent
SUFFIXES = (".yaml", ".yml")


def shipped_recipes() -> tuple[str, ...]:
    """Names of the recipes that the package ships."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def find_recipe(name: str) -> Path:
    """The file of a shipped recipe's name or of a path; RecipeError says which names there are."""
    if name in shipped_recipes():
        return FOLDER / f"{name}.yaml"
    path = Path(name).expanduser()
    if path.is_file():
        return path
    shipped = shipped_recipes()
    raise RecipeError(
        f"there is no recipe '{name}'{did_you_mean(name, shipped)} "
        f"(shipped recipes: {', '.join(shipped)}; or give a path to a YAML file)"
    )


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as a mapping of words to values; RecipeError names file and line of what is wrong."""
    content = read_yaml_file(path)
    if content is None:
        raise RecipeError(f"{path} is empty; `lavi show quickstart` prints a recipe to start from")
    if not isinstance(content, dict):
        raise RecipeError(
            f"{path} should hold sections such as `training:`, found a {type(content).__name__}"
        )
    return {str(key): value for key, value in content.items()}


def change(recipe: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """A copy of a recipe's mapping with `key.path=value` changes; a change of kind empties its section."""
    changed = _copy(recipe)
    pairs = [_split(setting) for setting in settings]
    # Kinds first, whatever their place on the command line: the other changes are for the new kind.
    for path, value in sorted(pairs, key=lambda pair: pair[0][1:] != ["kind"]):
        place = changed
        for depth, key in enumerate(path[:-1]):
            inner = place.setdefault(key, {})
            if inner is None:
                inner = place[key] = {}
            if not isinstance(inner, dict):
                raise RecipeError(
                    f"{'.'.join(path)}: {'.'.join(path[: depth + 1])} is {inner!r}, which has no fields"
                )
            place = inner
        if path[1:] == ["kind"] and place.get("kind") != value:
            place.clear()
        place[path[-1]] = value
    return changed


def _split(setting: str) -> tuple[list[str], Any]:
    """`a.b=value` as (["a", "b"], value); the value is read as YAML."""
    key, equals, text = setting.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise RecipeError(
            f"'{setting}' is no change to a recipe; write key.path=value, as in training.steps=200"
        )
    return path, parse_yaml(text, f"{key}: '{text}'")


def _copy(value: Any) -> Any:
    """Mappings copied all the way down; the rest is never changed in place."""
    return {key: _copy(item) for key, item in value.items()} if isinstance(value, Mapping) else value
