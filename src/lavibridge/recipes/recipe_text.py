"""Recipe text to mapping: YAML without duplicate keys, and `key.path=value` changes on top.

training.steps=200              one field
language={source: mini-llama}   a whole section, as YAML
data.kind=tsv                   another kind has other fields: the section starts empty, later changes fill it
data.path=2024-01-01            a field that is text or a path takes what was typed, whatever YAML makes of it

In a file YAML speaks first: `path: 2024-01-01` is a date there, and refused with the advice to quote it.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from lavibridge.core.config import did_you_mean
from lavibridge.core.errors import RecipeError
from lavibridge.core.paths import expand_path
from lavibridge.core.yaml_text import parse_yaml, read_yaml_file

_FOLDER = Path(__file__).parent
_SUFFIXES = (".yaml", ".yml")
_NULLS = ("", "~", "null", "Null", "NULL")
"""How YAML writes nothing."""
Annotation = Callable[[Mapping[str, Any], Sequence[str]], Any]
"""The type of the field at a path of a recipe's mapping; None where there is no such field."""


def shipped_recipes() -> tuple[str, ...]:
    """Names of the recipes that the package ships."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


def find_recipe(name: str) -> Path:
    """The file of a shipped recipe's name or of a path; RecipeError says which names there are."""
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
    """A YAML file as a mapping of words to values; RecipeError names file and line of what is wrong."""
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
    """A copy of a recipe's mapping with `key.path=value` changes, read by the types of the fields."""
    pairs = [_split(setting) for setting in settings]
    kinds = [(path, _as_yaml(path, text)) for path, text in pairs if _names_kind(path)]
    changed = _put_recipe_values(recipe, kinds)
    others = [(path, text) for path, text in pairs if not _names_kind(path)]
    # One by one: a whole section that is given may change the kind, and with it the fields after it.
    for path, text in others:
        changed = _put_recipe_values(changed, [(path, _as_typed(path, text, annotation(changed, path)))])
    return changed


def _put_recipe_values(recipe: Mapping[str, Any], pairs: Sequence[tuple[Sequence[str], Any]]) -> dict[str, Any]:
    """A copy of a recipe's mapping with other values at some paths; a change of kind empties its section."""
    changed = _copy(recipe)
    # Kinds first, whatever their place among the changes: the others are for the new kind.
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
    """Whether a path is that of a kind, on which the other fields of its section depend."""
    return len(path) > 1 and path[-1] == "kind"


def _as_typed(path: Sequence[str], text: str, annotation: Any) -> Any:
    """What was typed for a field: itself where the field is text or a path, unless quoted; else as YAML.

    Nothing, and `null` or `~` where a field may be empty, are no text.
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
    """Text as a YAML value."""
    return parse_yaml(text, f"{'.'.join(path)}: '{text}'")


def annotated_types(annotation: Any) -> set[Any]:
    """The types that a field may have, without what is said about them."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return annotated_types(inner[0])
    if origin in (Union, UnionType):
        return set().union(*(annotated_types(each) for each in inner))
    return {annotation}


def _split(setting: str) -> tuple[list[str], str]:
    """`a.b=value` as (["a", "b"], "value")."""
    key, equals, text = setting.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise RecipeError(
            f"'{setting}' is no change to a recipe; write key.path=value, as in training.steps=200"
        )
    return path, text


def _copy(value: Any) -> Any:
    """Mappings copied all the way down; the rest is never changed in place."""
    return {key: _copy(item) for key, item in value.items()} if isinstance(value, Mapping) else value
