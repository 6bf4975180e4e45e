"""Reading a pretrained model's small JSON files, from a folder or the hub, before any weights are loaded."""

import json
from pathlib import Path
from typing import Any

from lavibridge.core.errors import ModelError
from lavibridge.core.files import resolve_source

RANDOM = "random"
"""The source that stands for a toy of the real class with random weights, always the same ones, offline."""


def read_model_json(source: str, name: str, revision: str | None = None) -> dict[str, Any] | None:
    """The JSON file ``name`` of a model, or None where the model has no such file.

    Raises ModelError where the source is not to be found at all.
    """
    path = find_model_file(source, name, revision)
    if path is None:
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} should hold a JSON object, found a {type(content).__name__}")
    return content


def find_model_file(source: str, name: str, revision: str | None = None) -> Path | None:
    """Where the file ``name`` of a model lies here, or None where the model has no such file.

    Raises ModelError where the source is not to be found at all.
    """
    root = resolve_source(source)
    path = Path(root) / name if Path(root).is_dir() else _from_hub(root, name, revision)
    return path if path is not None and path.is_file() else None


def _from_hub(repository: str, name: str, revision: str | None) -> Path | None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repository, name, revision=revision))
    except LocalEntryNotFoundError:
        raise ModelError(
            f"'{repository}' is no folder here, and the hub cannot be reached to look for it there; "
            "check the spelling or the connection, or give a folder"
        ) from None
    except EntryNotFoundError:
        return None
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"'{repository}' is no folder here, and the hub refuses it: {reason}") from None
