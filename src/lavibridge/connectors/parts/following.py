"""The connector that follows inside another one: `then` of the refiner and the translator."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lavibridge.core import registry
from lavibridge.core.config import validate_config
from lavibridge.core.errors import RecipeError

if TYPE_CHECKING:
    from lavibridge.connectors.base import Connector

SETTING = "connector.then"


def read_following(
    then: str | Mapping[str, Any], **replaced: Any
) -> tuple[type["Connector"], "Connector.Config"]:
    """Return the class and the options of the following connector: a kind, or a mapping with `kind` and its
    options.

    ``replaced`` overrides options. Raises RecipeError if the kind is missing or unknown, or does not have
    these options.
    """
    options = {"kind": then} if isinstance(then, str) else dict(then)
    if "kind" not in options:
        raise RecipeError(f"{SETTING}.kind: name one of {', '.join(registry.kinds('connectors'))}")
    kind = registry.load_kind("connectors", options.pop("kind"))
    return kind, validate_config(kind.Config, options | replaced, SETTING)


def following_tokens(then: str | Mapping[str, Any]) -> tuple[str, int] | None:
    """Return what `Connector.fixed_tokens` says about the following connector, with the option's full path
    below `connector`."""
    kind, config = read_following(then)
    found = kind.fixed_tokens(config)
    return None if found is None else (f"then.{found[0]}", found[1])
