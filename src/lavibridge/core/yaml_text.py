"""Parses YAML strictly: no duplicate keys, and one error in one line for any fault."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from lavibridge.core.errors import RecipeError

MOST_LEVELS, MOST_VALUES = 32, 100_000
"""Bounds of a YAML text: how deep it nests, and its values with those that aliases repeat."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with bounds, and with an error for duplicate keys, of which PyYAML silently keeps
    the last."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._levels = self._values = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        mark = self.peek_event().start_mark
        if self.check_event(yaml.AliasEvent):
            node = super().compose_node(parent, index)
            self._values += self._sizes.get(id(node), 1)
        else:
            self._levels += 1
            if self._levels > MOST_LEVELS:
                raise yaml.composer.ComposerError(
                    None, None, f"it nests more than {MOST_LEVELS} levels deep", mark
                )
            before = self._values
            self._values += 1
            node = super().compose_node(parent, index)
            self._sizes[id(node)] = self._values - before
            self._levels -= 1
        if self._values > MOST_VALUES:
            raise yaml.composer.ComposerError(
                None, None, f"it has more than {MOST_VALUES} values, with those that aliases repeat", mark
            )
        return node

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
