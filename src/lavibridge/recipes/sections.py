"""A recipe's sections that name a kind: the kind's own settings, with the kind beside them.

    vision: {kind: sd, source: mini-sd}   ->   sd's Config(source="mini-sd"), with kind="sd"

`kind: auto` (or no kind, for the two models) reads the model's own configuration and takes the family that it
names, so that a recipe written to a run folder always says which.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from inspect import getmembers, isabstract, isclass
from typing import Any, Literal

from pydantic import create_model

from lavibridge.core import registry
from lavibridge.core.config import Config, validate
from lavibridge.core.errors import RecipeError

ROOMS = {"language": "language", "vision": "vision", "connector": "connectors", "data": "data"}
"""Section of a recipe -> room that its kinds live in."""


@cache
def section_model(room: str, kind: str) -> type[Config]:
    """The settings of a kind with `kind` beside them; the same class every time."""
    component = registry.load(room, kind)
    fixed: Any = Literal[kind]
    name = f"{component.__name__}Section"
    return create_model(name, __base__=component.Config, kind=(fixed, kind))


def read_section(section: str, value: Any) -> Config:
    """Validate one section; RecipeError names the key, what was found and what was likely meant."""
    if isinstance(value, Config):
        return value
    if isinstance(value, str):  # `connector: lavi`, `language: mini-llama`
        value = {"kind" if section == "connector" else "source": value}
    if not isinstance(value, Mapping):
        raise RecipeError(f"{section}: should hold fields such as `kind:`, found {value!r}")
    room = ROOMS[section]
    return validate(
        section_model(room, _kind(section, value)), {**value, "kind": _kind(section, value)}, section
    )


def section_type(section: str, value: Any) -> type[Config]:
    """The settings that a section not yet read has: those of its kind, or what all kinds of the room have."""
    room = ROOMS[section]
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if kind in registry.kinds(room):
        return section_model(room, str(kind))
    base = import_module(f"lavibridge.{room}.base")
    contracts: Iterator[Any] = (each for _, each in getmembers(base, isclass) if isabstract(each))
    return next(
        (each.Config for each in contracts if issubclass(getattr(each, "Config", int), Config)), Config
    )


def kind_of(section: Config) -> str:
    """The kind that a validated section names."""
    return str(section.model_dump()["kind"])


def _kind(section: str, value: Mapping[str, Any]) -> str:
    """The kind that a section names, or that its source turns out to be."""
    room = ROOMS[section]
    kind = value.get("kind", "auto")
    if kind != "auto":
        return str(kind)
    source = value.get("source")
    if section not in ("language", "vision") or source is None or source == "random":
        raise RecipeError(f"{section}.kind is missing (kinds: {', '.join(registry.kinds(room))})")
    return registry.detect(room, str(source), value.get("revision"))
