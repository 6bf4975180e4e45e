"""Compares a saved bridge with the models between which it is opened, before their weights load.

connector weights   names and shapes of the file, and those that the models' sizes require
models' files       their hashes now, and those that the single file records
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lavibridge.bridge import choices
from lavibridge.bridge.saved_bridge import SavedBridge
from lavibridge.core.contracts import TextSpec, VisionSpec
from lavibridge.core.errors import ModelError
from lavibridge.core.identity import source_identity
from lavibridge.core.log import console
from lavibridge.core.tensors import check_tensors_fit
from lavibridge.language.base import LanguageModel


def check_stored_models(stored: SavedBridge) -> None:
    """Check the models of a single file by their configurations; a folder is as its owner left it.

    Warns about models whose files have changed. Raises ModelError if there is no such model, or if the
    connector does not fit between the two.
    """
    if stored.packed is None:
        return
    warn_about_changed_model("language model", stored.language, stored.packed.models.language)
    warn_about_changed_model("vision model", stored.vision, stored.packed.models.vision)
    language: LanguageModel = choices.model_of_choice("language", stored.language, torch.device("meta"))
    check_connector_fits(stored, language.config.source, language.spec, stored.packed.models.denoiser.spec)


def check_connector_fits(stored: SavedBridge, source: str, text: TextSpec, vision: VisionSpec) -> None:
    """Raise ModelError unless the saved connector fits a language model of this source; builds no weights."""
    kind, config = choices.connector_of_choice(stored.connector)
    with torch.device("meta"):
        planned: Mapping[str, Tensor] = kind(config, text, vision).state_dict()
    try:
        check_tensors_fit(planned, stored.tensors("connector"), f"the connector in {stored.path}")
    except ModelError as error:
        raise ModelError(
            f"{error}. The language model '{source}' has width {text.width} and {text.layers} layers; choose "
            f"the one that the bridge was trained with, '{stored.language['source']}'"
        ) from error


def files_identity(options: Mapping[str, Any]) -> str:
    """Return the hash of the files that a model's options name; of a hub id, the commit."""
    names = ("source", "revision", "config", "variant")
    return source_identity(**{name: options[name] for name in names if options.get(name) is not None})


def warn_about_changed_model(name: str, options: Mapping[str, Any], recorded: str) -> None:
    """Warn if the files that ``options`` name have another hash than the recorded one.

    Another copy of the same model may have other files, so this is no error.
    """
    if files_identity(options) != recorded:
        console.print(
            f"note: the files of the {name} '{options['source']}' are not those that the bridge was exported "
            "with: images differ if it is another model, or a fine-tuned one",
        )
