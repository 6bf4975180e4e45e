"""Reads the sections of a recipe that name a kind, such as `language` and `connector`.

    vision: {kind: sd, source: mini-sd}   ->   sd's Config(source="mini-sd"), with kind="sd"

For the two models, `kind: auto` or no kind detects the family from the model's own configuration. The
recipe in a run folder always names the kind.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from inspect import getmembers, isabstract, isclass
from typing import Any, Literal

from pydantic import BeforeValidator, create_model

from lavibridge.core import registry
from lavibridge.core.config import Config, validate_config
from lavibridge.core.errors import ModelError, RecipeError
from lavibridge.core.sources import RANDOM

SECTION_PACKAGES = {"language": "language", "vision": "vision", "connector": "connectors", "data": "data"}
"""Section of a recipe -> package of its kinds."""
_AUTO = "auto"


@cache
def _section_model(package: str, kind: str) -> type[Config]:
    """Return the settings of a kind with the field `kind`; the same class on every call."""
    component = registry.load_kind(package, kind)
    fixed: Any = Literal[kind]
    name = f"{component.__name__}Section"
    return create_model(name, __base__=component.Config, kind=(fixed, kind))


def read_section(section: str, value: Any) -> Config:
    """Validate one section. Raises RecipeError with the key, the value found, and the likely key."""
    if isinstance(value, str) and section != "connector":  # `language: mini-llama`
        value = {"source": value}
    if section in ("language", "vision") and isinstance(value, Mapping):
        value = {**value, "kind": _model_kind(section, value)}
    found = read_kind_section(SECTION_PACKAGES[section], value, section)
    return _with_token_limit(found) if section == "language" else found


def read_kind_section(package: str, value: Any, where: str = "") -> Config:
    """Read the settings of a kind from its name, from `{kind: lavi, ...}`, or from settings already read.

    Raises RecipeError; ``where`` is the dotted path in its message.
    """
    where = where or package
    if isinstance(value, Config):
        return value
    if isinstance(value, str):
        value = {"kind": value}
    if not isinstance(value, Mapping):
        raise RecipeError(f"{where}: should hold fields such as `kind:`, found {value!r}")
    kind = value.get("kind", _AUTO)
    if kind == _AUTO:
        raise RecipeError(f"{where}.kind is missing (kinds: {', '.join(registry.kinds(package))})")
    return validate_config(_section_model(package, str(kind)), {**value, "kind": str(kind)}, where)


def section_field(package: str, where: str) -> BeforeValidator:
    """Return the validator of a configuration field that holds a kind of a package."""
    return BeforeValidator(lambda value: read_kind_section(package, value, where))


@cache
def component_of_section(package: str, section: Config) -> Any:
    """Build the component of a section, for kinds that need nothing but their settings."""
    return registry.load_kind(package, kind_of_section(section))(section)


def section_type(section: str, value: Any) -> type[Config]:
    """Return the settings class of an unvalidated section: its kind's, or the base class of all kinds."""
    package = SECTION_PACKAGES[section]
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if kind in registry.kinds(package):
        return _section_model(package, str(kind))
    base = import_module(f"lavibridge.{package}.base")
    contracts: Iterator[Any] = (each for _, each in getmembers(base, isclass) if isabstract(each))
    return next(
        (each.Config for each in contracts if issubclass(getattr(each, "Config", int), Config)), Config
    )


def kind_of_section(section: Config) -> str:
    """Return the kind of a validated section."""
    return str(section.model_dump()["kind"])


def _with_token_limit(section: Config) -> Config:
    """Return a language section with the limit of its model in place of `auto`, which a run's recipe states.

    A toy, and a model whose configuration cannot be read here, keep `auto`.
    """
    options = section.model_dump()
    if options.get("max_tokens") != "auto" or options.get("source") in (None, RANDOM):
        return section
    family = registry.load_kind("language", kind_of_section(section))
    with suppress(ModelError):
        return section.model_copy(update={"max_tokens": family.default_max_tokens(section)})
    return section


def _model_kind(section: str, value: Mapping[str, Any]) -> Any:
    """Return the kind that a section names, or the kind detected from its source."""
    kind, source = value.get("kind", _AUTO), value.get("source")
    if kind != _AUTO or source in (None, RANDOM):
        return kind
    return registry.detect_kind_of_options(SECTION_PACKAGES[section], value)
