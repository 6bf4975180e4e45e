"""Parses recipe text: YAML without duplicate keys, and changes such as `key.path=value`.

training.steps=200              one field
language={source: mini-llama}   a whole section, as YAML
data.kind=tsv                   another kind has other fields, so the section starts empty
data.path=2024-01-01            a field for text or a path takes the text as typed

In a file, YAML decides first: it reads `path: 2024-01-01` as a date, and the error advises quotes.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from lavibridge.core.errors import RecipeError, did_you_mean
from lavibridge.core.paths import expand_path
from lavibridge.core.yaml_text import parse_yaml, read_yaml_file

_FOLDER = Path(__file__).parent
_SUFFIXES = (".yaml", ".yml")
_NULLS = ("", "~", "null", "Null", "NULL")
"""The spellings of null in YAML."""
Annotation = Callable[[Mapping[str, Any], Sequence[str]], Any]
"""Returns the type of the field at a path of a recipe's mapping; None if there is no such field."""


def shipped_recipes() -> tuple[str, ...]:
    """Return the names of the recipes in the package."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


def find_recipe(name: str) -> Path:
    """Return the file of a shipped recipe or of a path. Raises RecipeError with the known names."""
    if name in shipped_recipes():
        return _FOLDER / f"{name}.yaml"
    path = expand_path(name)
    if path.is_file():
        return path
    shipped = shipped_recipes()
    raise RecipeError(
        f"there is no recipe '{name}'{did_you_mean(name, shipped)} "
        f"(shipped recipes: {', '.join(shipped)}; or give a path to a YAML file)"
    )


def read_recipe_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file as a mapping. Raises RecipeError with file and line."""
    content = read_yaml_file(path)
    if content is None:
        raise RecipeError(f"{path} is empty; `lavi show quickstart` prints a recipe to start from")
    if not isinstance(content, dict):
        raise RecipeError(
            f"{path} should hold sections such as `training:`, found a {type(content).__name__}"
        )
    return {str(key): value for key, value in content.items()}


def change_recipe_text(
    recipe: Mapping[str, Any], settings: Sequence[str], annotation: Annotation = lambda *_: None
) -> dict[str, Any]:
    """Return a copy of a recipe's mapping with `key.path=value` changes, parsed by the fields' types."""
    pairs = [_split(setting) for setting in settings]
    kinds = [(path, _as_yaml(path, text)) for path, text in pairs if _names_kind(path)]
    changed = _put_recipe_values(recipe, kinds)
    others = [(path, text) for path, text in pairs if not _names_kind(path)]
    # One by one, because a change of a whole section may change its kind and so the fields after it.
    for path, text in others:
        changed = _put_recipe_values(changed, [(path, _as_typed(path, text, annotation(changed, path)))])
    return changed


def _put_recipe_values(
    recipe: Mapping[str, Any], pairs: Sequence[tuple[Sequence[str], Any]]
) -> dict[str, Any]:
    """Return a copy of a recipe's mapping with new values at some paths; a new kind empties its section."""
    changed = _copy(recipe)
    # Kinds come first in any order of the changes, because the others belong to the new kind.
    for path, value in sorted(pairs, key=lambda pair: not _names_kind(pair[0])):
        place = changed
        for depth, key in enumerate(path[:-1]):
            inner = place.setdefault(key, {})
            if inner is None or (isinstance(inner, str) and _names_kind(path)):
                inner = place[key] = {}
            if not isinstance(inner, dict):
                raise RecipeError(
                    f"{'.'.join(path)}: {'.'.join(path[: depth + 1])} is {inner!r}, which has no fields"
                )
            place = inner
        if _names_kind(path) and place.get("kind") != value:
            place.clear()
        place[path[-1]] = value
    return changed


def _names_kind(path: Sequence[str]) -> bool:
    """Whether a path names a kind, on which the other fields of its section depend."""
    return len(path) > 1 and path[-1] == "kind"


def _as_typed(path: Sequence[str], text: str, annotation: Any) -> Any:
    """Parse the typed value of a field: unquoted text for a text or path field, YAML for other fields.

    Empty text means None, and so do `null` and `~` for an optional field.
    """
    types, bare = annotated_types(annotation), text.strip()
    others = types - {str, Path, type(None)}
    if not types & {str, Path} or (others and bare[:1] in ("{", "[")):
        return _as_yaml(path, text)
    if bare[:1] in ("'", '"'):
        try:
            value = parse_yaml(text, ".".join(path))
        except RecipeError:
            value = None
        return value if isinstance(value, str) else bare
    if not text or (type(None) in types and bare in _NULLS):
        return None
    return bare or text


def _as_yaml(path: Sequence[str], text: str) -> Any:
    """Parse text as a YAML value."""
    return parse_yaml(text, f"{'.'.join(path)}: '{text}'")


def annotated_types(annotation: Any) -> set[Any]:
    """Return the types that a field accepts, without their annotations."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return annotated_types(inner[0])
    if origin in (Union, UnionType):
        return set().union(*(annotated_types(each) for each in inner))
    return {annotation}


def _split(setting: str) -> tuple[list[str], str]:
    """Split `a.b=value` into (["a", "b"], "value")."""
    key, equals, text = setting.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise RecipeError(
            f"'{setting}' is not a change of a recipe: write key.path=value, as in training.steps=200"
        )
    return path, text


def _copy(value: Any) -> Any:
    """Copy nested mappings; other values never change in place."""
    return {key: _copy(item) for key, item in value.items()} if isinstance(value, Mapping) else value
