"""YAML as it is read everywhere: no key twice, and one error in one line, whatever is wrong with the text."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from lavibridge.core.errors import RecipeError


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader; by itself it lets a second key of the same name replace the first in silence."""

    def construct_document(self, node: yaml.Node) -> Any:
        self.deep_construct = True  # finds out what holds itself, as in `&a [*a]`
        return super().construct_document(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is no single word", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' is written twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text; RecipeError names ``where`` it stands and what is wrong."""
    try:
        return yaml.load(text, Loader=_Loader)
    # For values such as the date 2024-13-45, PyYAML passes on what Python's own constructors raise.
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise RecipeError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from error


def read_yaml_file(path: Path) -> Any:
    """The value of a YAML file; RecipeError names file and line of what is wrong."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not UTF-8 text: {error.reason}") from error
    return parse_yaml(text, str(path))
