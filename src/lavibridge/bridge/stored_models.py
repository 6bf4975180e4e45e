"""Compares a saved bridge with the models between which it is opened, before their weights load.

connector weights   names and shapes of the file, and those that the models' sizes require
models' files       their hashes now, and those that the single file records
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from lavibridge.bridge import choices
from lavibridge.bridge.saved_bridge import SavedBridge
from lavibridge.core.contracts import TextSpec, VisionSpec
from lavibridge.core.errors import ModelError
from lavibridge.core.identity import source_identity
from lavibridge.core.log import console
from lavibridge.core.tensors import check_tensors_finite, check_tensors_fit
from lavibridge.language.base import LanguageModel


def check_stored_models(
    stored: SavedBridge, language_options: Mapping[str, Any], vision_options: Mapping[str, Any]
) -> None:
    """Check the models of a single file by their configurations; a folder is as its owner left it.

    Warns about models whose files have changed. Raises ModelError if there is no such model, or if the
    connector does not fit between the two.
    """
    if stored.packed is None:
        return
    warn_about_changed_model(stored, "language", language_options)
    warn_about_changed_model(stored, "vision", vision_options)
    language: LanguageModel = choices.model_of_choice("language", language_options, torch.device("meta"))
    check_connector_fits(stored, language.config.source, language.spec, stored.packed.models.denoiser.spec)


def check_connector_fits(stored: SavedBridge, source: str, text: TextSpec, vision: VisionSpec) -> None:
    """Raise ModelError unless the saved connector fits a language model of this source; builds no weights.

    A description of a few bytes may ask for any number of blocks of any width, so its numbers are compared
    with the sizes of the weights first.
    """
    kind, config = choices.connector_of_choice(stored.connector)
    tensors = stored.tensors("connector")
    check_tensors_finite(tensors, f"the connector in {stored.path}")
    most = max(len(tensors), *(side for value in tensors.values() for side in value.shape), 0)
    for name, number in _whole_numbers(config.model_dump()):
        if abs(number) > most:
            raise ModelError(
                f"{stored.path} is damaged: the connector's {name} is {number:,}, and its weights have no "
                f"side above {most:,}: take another copy"
            )
    with torch.device("meta"):
        planned: Mapping[str, Tensor] = kind(config, text, vision).state_dict()
    try:
        check_tensors_fit(planned, tensors, f"the connector in {stored.path}")
    except ModelError as error:
        raise ModelError(
            f"{error}. The language model '{source}' has width {text.width} and {text.layers} layers; choose "
            f"the one that the bridge was trained with, '{stored.language['source']}'"
        ) from error


def _whole_numbers(options: Any, name: str = "") -> Iterator[tuple[str, int]]:
    """Yield the whole numbers in options, with their names."""
    if isinstance(options, Mapping):
        for key, value in options.items():
            yield from _whole_numbers(value, str(key))
    elif isinstance(options, list | tuple):
        for value in options:
            yield from _whole_numbers(value, name)
    elif isinstance(options, int) and not isinstance(options, bool):
        yield name, options


def files_identity(options: Mapping[str, Any]) -> str:
    """Return the hash of the files that a model's options name; of a hub id, the commit."""
    names = ("source", "revision", "config", "variant")
    return source_identity(**{name: options[name] for name in names if options.get(name) is not None})


def warn_about_changed_model(stored: SavedBridge, package: str, options: Mapping[str, Any]) -> None:
    """Warn if the files that a model's ``options`` name have another hash than the single file records.

    Another copy of the same model may have other files, so this is no error. ``package`` is language or
    vision. Raises ModelError if there is no such model.
    """
    if stored.packed is None:
        return
    source = options["source"]
    try:
        found = files_identity(options)
    except ModelError as error:
        raise ModelError(
            f"{stored.path} needs the {package} model '{source}', which cannot be opened here: {error}. "
            f"Bridge.from_pretrained(..., {package}=SOURCE) takes another copy of it"
        ) from error
    if found != getattr(stored.packed.models, package):
        console.print(
            f"note: the files of the {package} model '{source}' are not those that the bridge was exported "
            "with: images differ if it is another model, or a fine-tuned one",
        )
