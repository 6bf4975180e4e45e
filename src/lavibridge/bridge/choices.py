"""What a bridge may be composed of, as callers name it: sources, kinds and mappings of options."""

from collections.abc import Mapping
from typing import Any, Literal

import torch

from lavibridge.connectors.base import Connector
from lavibridge.core import registry
from lavibridge.core.config import validate
from lavibridge.core.errors import RecipeError
from lavibridge.core.sources import RANDOM
from lavibridge.lora import LoraSettings

LoraChoice = LoraSettings | Mapping[str, Any] | Literal["default"] | None


def component(room: str, choice: str | Mapping[str, Any], device: torch.device | None = None) -> Any:
    """Build a model from its source or its options, whose kind is detected if none is named.

    On the meta ``device`` no weights are read.
    """
    options = {"source": choice} if isinstance(choice, str) else dict(choice)
    kind = options.pop("kind", None)
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
    return chosen(validate(chosen.Config, options, room), device)


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
