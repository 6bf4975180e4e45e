"""What a bridge is composed of, as callers name it: sources, kinds, mappings of options, loaded models."""

from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any, Literal

from torch import nn

from lavibridge.connectors.base import Connector
from lavibridge.core import registry
from lavibridge.core.config import validate
from lavibridge.core.errors import RecipeError
from lavibridge.core.sources import RANDOM
from lavibridge.lora import LoraSettings

ModelChoice = str | PathLike[str] | Mapping[str, Any] | nn.Module
LoraChoice = LoraSettings | Mapping[str, Any] | Literal["default"] | None


def component(room: str, choice: ModelChoice) -> Any:
    """The language or vision model (``room``) of a source or options, or the loaded model itself.

    Detects the kind where none is named. Raises RecipeError for options, ModelError for files.
    """
    if isinstance(choice, nn.Module):
        return choice
    options: dict[str, Any] = dict(choice) if isinstance(choice, Mapping) else {"source": choice}
    kind = options.pop("kind", None)
    if isinstance(options.get("source"), PathLike):
        options["source"] = fspath(options["source"])
    source = options.get("source")
    if not isinstance(source, str):
        raise RecipeError(f"{room}.source: give a folder, a shipped model's name, a hub id or 'random'")
    if kind is None and source == RANDOM:
        raise RecipeError(
            f"{room}.kind: a random toy needs its kind named, one of {', '.join(registry.kinds(room))}"
        )
    chosen = registry.load(
        room, registry.detect(room, source, options.get("revision")) if kind is None else kind
    )
    return chosen(validate(chosen.Config, options, room))


def connector(choice: str | Mapping[str, Any]) -> tuple[type[Connector], Connector.Config]:
    options = {"kind": choice} if isinstance(choice, str) else dict(choice)
    if "kind" not in options:
        raise RecipeError(f"connector.kind: name one of {', '.join(registry.kinds('connectors'))}")
    chosen = registry.load("connectors", options.pop("kind"))
    return chosen, validate(chosen.Config, options, "connector")


def lora_settings(choice: LoraChoice, where: str) -> LoraSettings | None:
    if isinstance(choice, Mapping):
        return validate(LoraSettings, choice, where)
    return LoraSettings() if choice == "default" else choice
