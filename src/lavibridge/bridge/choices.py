"""Turns the arguments of `Bridge.compose` (sources, kinds, options) into models and settings."""

from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any, Literal

import torch
from torch import nn

from lavibridge.bridge.lora_files import add_lora_files, lora_file_at
from lavibridge.connectors.base import Connector
from lavibridge.core import registry
from lavibridge.core.config import validate_config
from lavibridge.core.errors import ModelError, RecipeError
from lavibridge.core.sources import RANDOM
from lavibridge.language.parts.loading import quieten_transformers
from lavibridge.language.parts.native import NativeText
from lavibridge.lora import LoraSettings
from lavibridge.vision.base import VisionModel
from lavibridge.vision.parts.single_file import locate_configuration

ModelChoice = str | PathLike[str] | Mapping[str, Any] | nn.Module
_OF_SOURCE = ("kind", "revision", "config", "variant")
LoraChoice = LoraSettings | Mapping[str, Any] | Literal["default"] | None


def model_of_choice(package: str, choice: ModelChoice, device: torch.device | None = None) -> Any:
    """Load the language or vision model (``package``) of a source or of options; return a loaded model as is.

    Detects the kind if the options name none. Adds a vision model's LoRA files to its denoiser. On the meta
    ``device`` the model has shapes but no weights.
    Raises RecipeError for wrong options and ModelError for wrong files.
    """
    if isinstance(choice, nn.Module):
        return choice
    options: dict[str, Any] = dict(choice) if isinstance(choice, Mapping) else {"source": choice}
    kind = options.pop("kind", None)
    for name in ("source", "config"):
        if isinstance(options.get(name), PathLike):
            options[name] = fspath(options[name])
    source = options.get("source")
    if not isinstance(source, str):
        raise RecipeError(f"{package}.source: give a folder, a shipped model's name, a hub id or 'random'")
    if kind is None and source == RANDOM:
        raise RecipeError(
            f"{package}.kind: a random toy needs its kind named, one of {', '.join(registry.kinds(package))}"
        )
    chosen = _load_kind(package, registry.detect_kind_of_options(package, options) if kind is None else kind)
    config = validate_config(chosen.Config, options, package)
    if not isinstance(config, VisionModel.Config) or not config.lora_files:
        return chosen(config, device)
    for each in config.lora_files:
        lora_file_at(each.path)
    model = chosen(config, device)
    if not model.placement.is_meta:
        add_lora_files(model)
    return model


def with_options(choice: ModelChoice, changed: Mapping[str, Any]) -> ModelChoice:
    """Return a choice with some options changed; a loaded model stays as it is."""
    if isinstance(choice, nn.Module) or not changed:
        return choice
    return {**(choice if isinstance(choice, Mapping) else {"source": choice}), **changed}


def replaced_options(
    saved: Mapping[str, Any], choice: str | PathLike[str] | Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return a saved model's options, with another source for a copy of the model, or with other options.

    What belongs to the saved source (kind, revision, configuration, variant) does not apply to another.
    """
    if choice is None:
        return dict(saved)
    changed = dict(choice) if isinstance(choice, Mapping) else {"source": choice}
    kept = dict(saved)
    if "source" in changed:
        changed["source"] = fspath(changed["source"])
        if changed["source"] != saved["source"]:
            kept = {name: value for name, value in saved.items() if name not in _OF_SOURCE}
    return {**kept, **changed}


def native_text_encoders(
    vision: VisionModel, max_sequence_length: int | None = None, unload: bool = False
) -> NativeText:
    """Load the text encoders of the vision model's own pipeline, in the denoiser's number format.

    ``max_sequence_length`` replaces the pipeline's default, where it has that argument. With ``unload``, each
    encoder is loaded when prompts are read and let go before the next. Raises ModelError where the folder
    lacks an encoder, or is a random toy. On the meta device, where the vision model lies there.
    """
    if vision.config.source == RANDOM:
        raise ModelError("a random toy has no text encoders of its own: give a pipeline's folder or hub id")
    quieten_transformers()  # importing the pipeline logs missing packages
    side = vision.pipeline_text_encoders()
    return NativeText(
        NativeText.Config(
            source=vision.config.source,
            revision=vision.config.revision,
            config=_configuration(vision.config),
            variant=vision.config.variant,
            dtype=vision.config.dtype,
            side=side if max_sequence_length is None else side.limited(max_sequence_length),
            width=vision.spec.context,
            unload=unload,
        ),
        vision.alphas.device,
    )


def _configuration(config: VisionModel.Config) -> str | None:
    """Return where a single file's configurations are; None for a model that has its own."""
    place, _ = locate_configuration(config.source, config.config, config.revision)
    return None if place == config.source else place


def connector_of_choice(choice: str | Mapping[str, Any]) -> tuple[type[Connector], Connector.Config]:
    """Return the class and the options of a connector. Raises RecipeError for wrong ones."""
    options = {"kind": choice} if isinstance(choice, str) else dict(choice)
    if "kind" not in options:
        raise RecipeError(f"connector.kind: name one of {', '.join(registry.kinds('connectors'))}")
    chosen = _load_kind("connectors", options.pop("kind"))
    return chosen, validate_config(chosen.Config, options, "connector")


def _load_kind(package: str, kind: Any) -> type[Any]:
    """Return the class of a kind. Raises RecipeError if it is no name, or not one of the package's."""
    if not isinstance(kind, str):
        raise RecipeError(f"{package}: kind should be a name, found {kind!r:.80}")
    return registry.load_kind(package, kind)


def lora_settings_of_choice(choice: LoraChoice, where: str) -> LoraSettings | None:
    """Return LoRA's settings; ``default`` means the published ones. Raises RecipeError naming ``where``."""
    if isinstance(choice, Mapping):
        return validate_config(LoraSettings, choice, where)
    return LoraSettings() if choice == "default" else choice
