"""Warns about frozen models whose files differ from those that a bridge was exported with."""

from collections.abc import Mapping
from typing import Any

from lavibridge.bridge.saved_bridge import SavedBridge
from lavibridge.core.identity import source_identity
from lavibridge.core.log import console


def files_identity(options: Mapping[str, Any]) -> str:
    """Return the hash of the files that a model's options name; of a hub id, the commit."""
    names = ("source", "revision", "config", "variant")
    return source_identity(**{name: options[name] for name in names if options.get(name) is not None})


def warn_about_changed_models(stored: SavedBridge) -> None:
    """Warn about every model whose files have another hash than the single file records.

    Another copy of the same model may have other files, so this is no error. Raises ModelError if there is no
    such model. A folder records no hashes.
    """
    if stored.packed is None:
        return
    warn_about_changed_model("language model", stored.language, stored.packed.models.language)
    warn_about_changed_model("vision model", stored.vision, stored.packed.models.vision)


def warn_about_changed_model(name: str, options: Mapping[str, Any], recorded: str) -> None:
    """Warn if the files that ``options`` name have another hash than the recorded one."""
    if files_identity(options) != recorded:
        console.print(
            f"note: the files of the {name} '{options['source']}' are not those that the bridge was exported "
            "with: images differ if it is another model, or a fine-tuned one",
        )
