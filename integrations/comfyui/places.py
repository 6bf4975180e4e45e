"""Finds the files that the nodes name, in ComfyUI's folders if it runs."""

import sys
from pathlib import Path
from typing import Any

from lavibridge.core.errors import DataError, RunError
from lavibridge.core.paths import expand_path
from lavibridge.core.registry import detect_kind_of_options
from lavibridge.core.sources import is_hub_id


def find_language_model(source: str) -> str:
    """Return the source of a language model, by its path in models/text_encoders if it lies there.

    Raises ModelError if no supported model is there.
    """
    found = _first([source], _comfyui("text_encoders"))
    chosen = source if found is None else str(found)
    detect_kind_of_options("language", {"source": chosen})
    return chosen


def find_bridge(name: str) -> str:
    """Return the path of a bridge, or its hub id. Raises RunError if there is neither."""
    if not name:
        raise RunError("Load bridge: name a file that `lavi export RUN --format bridge` wrote")
    names = [name] if name.endswith(".safetensors") else [name, f"{name}.safetensors"]
    found = _first(names, _comfyui("bridges"))
    if found is None and not is_hub_id(name):
        raise RunError(
            f"Load bridge: there is no file or folder '{name}', here or in ComfyUI's models/bridges"
        )
    return name if found is None else str(found)


def find_conditioning(name: str) -> Path:
    """Return the path of a conditioning. Raises DataError if there is no such file."""
    paths = _folder_paths()
    folders = [] if paths is None else [paths.get_input_directory(), paths.get_output_directory()]
    found = _first([name], [Path(folder) for folder in folders]) if name else None
    if found is None or not found.is_file():
        raise DataError(
            f"Load conditioning: there is no file '{name}', here or in ComfyUI's input and output"
        )
    return found


def conditioning_output(prefix: str) -> Path:
    """Return the next free file below ComfyUI's output folder."""
    import folder_paths

    folder, stem, count, _, _ = folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory())
    return Path(folder) / f"{stem}_{count:05}_.safetensors"


def _first(names: list[str], folders: list[Path]) -> Path | None:
    """Return the first path that exists: a name as it is, or in one of the folders."""
    places = [expand_path(name) for name in names] + [folder / name for folder in folders for name in names]
    return next((place for place in places if place.exists()), None)


def _comfyui(kind: str) -> list[Path]:
    """Return ComfyUI's folders for one kind of models, such as models/bridges; none if it does not run."""
    paths = _folder_paths()
    if paths is None:
        return []
    known = paths.folder_names_and_paths
    return [Path(each) for each in known[kind][0]] if kind in known else [Path(paths.models_dir) / kind]


def _folder_paths() -> Any:
    """Return ComfyUI's module of that name, or None outside of ComfyUI."""
    return sys.modules.get("folder_paths")
