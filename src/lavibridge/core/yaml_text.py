"""Parses YAML strictly: no duplicate keys, and one error in one line for any fault."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from lavibridge.core.errors import RecipeError


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with an error for duplicate keys, where PyYAML silently keeps the last."""

    def construct_document(self, node: yaml.Node) -> Any:
        self.deep_construct = True  # detects recursive values such as `&a [*a]`
        return super().construct_document(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key is not a single word", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key.value}' is written twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def parse_yaml(text: str, where: str) -> Any:
    """Parse a YAML text. Raises RecipeError, which names ``where`` the text is from and the fault."""
    try:
        return yaml.load(text, Loader=_Loader)
    # For values such as the date 2024-13-45, PyYAML raises the errors of Python's own constructors.
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise RecipeError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from error


def read_yaml_file(path: Path) -> Any:
    """Parse a YAML file. Raises RecipeError with the file and line of the fault."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not UTF-8 text: {error.reason}") from error
    return parse_yaml(text, str(path))
