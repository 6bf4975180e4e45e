"""Checks that a run writes nothing into the folders that it reads as a whole.

a folder of images    every file below it that is not hidden becomes data at the next start
a model's folder      every file in it is part of the model's identity
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lavibridge.bridge.bridge_file import is_bridge_file
from lavibridge.bridge.saved_bridge import read_bridge_description
from lavibridge.core.errors import LaviError, RunError
from lavibridge.core.paths import expand_path, is_below
from lavibridge.core.sources import resolve_source
from lavibridge.data.mixture import Mixture, flatten_parts
from lavibridge.data.pictures.walk import is_hidden
from lavibridge.recipes.recipe import Recipe, make_recipe
from lavibridge.recipes.recipe_text import read_recipe_yaml
from lavibridge.recipes.sections import kind_of_section

_READ_WHOLE = "folder"
"""The kind of data that reads every file below a folder as an image."""
Places = Mapping[str, Path]
"""Folders and files by the recipe field that names them."""


def check_input_paths(recipe: Recipe, out: Path | None) -> None:
    """Raise RunError if a run would write into its inputs, or read from its own folder."""
    written = _written(recipe)
    if out is not None:
        for name, place in _read_by(recipe).items():
            if _inside(place, out):
                raise RunError(
                    f"{name} is {place}, which is inside the run's own folder {out}: choose another --out"
                )
        written["--out"] = out
    for name, place in written.items():
        refuse_output_inside_inputs(place, name, _swallowed_by(recipe))


def refuse_output_inside_inputs(out: Path, name: str, inputs: Places) -> None:
    """Raise RunError if an output path is inside one of the folders that a run reads as a whole."""
    for what, folder in inputs.items():
        if not _inside(out, folder):
            continue
        below = expand_path(out).resolve().relative_to(expand_path(folder).resolve()).as_posix()
        if what.startswith("data") and is_hidden(below):
            continue
        raise RunError(
            f"{name} is {out}, which is inside {what} ({folder}) and would be read as a part of it next "
            "time: choose a path outside"
        )


def _swallowed_by(recipe: Recipe) -> dict[str, Path]:
    """Return the folders that a run reads as a whole: images and models."""
    folders = {
        f"data{number}.path": Path(config.model_dump()["path"])
        for number, (kind, config) in _data(recipe)
        if kind == _READ_WHOLE
    }
    for section in ("language", "vision"):
        folders |= _models(section, getattr(recipe, section).model_dump())
    return folders


def _read_by(recipe: Recipe) -> dict[str, Path]:
    """Return every path that a run reads."""
    found = _swallowed_by(recipe)
    for index, each in enumerate(recipe.vision.model_dump()["lora_files"]):
        found[f"vision.lora_files.{index}.path"] = each["path"]
    start = recipe.training.start
    if start is not None and start.pivot is not None:
        found["training.start.pivot"] = start.pivot
    if start is not None and start.bridge is not None and expand_path(start.bridge).is_dir():
        found["training.start.bridge"] = expand_path(start.bridge)
    for number, (_, config) in _data(recipe):
        options = config.model_dump()
        for field in ("path", "root"):
            # A hub id is no path, even if a folder of that name exists.
            if isinstance(options.get(field), Path):
                found[f"data{number}.{field}"] = options[field]
    return found


def input_paths_of(run: str | Path) -> dict[str, Path]:
    """Return the folders behind a run, a saved bridge or an image model, which must not receive output.

    Ignores what it cannot read, since the caller that opens it raises the error.
    """
    folder = expand_path(run)
    try:
        parts = folder.absolute().parts
        if "checkpoints" in parts[-3:]:  # RUN/checkpoints/step-N, RUN/checkpoints/step-N/ema
            whole = Path(*parts[: len(parts) - 1 - parts[::-1].index("checkpoints")])
        else:
            whole = folder
        if (whole / "recipe.yaml").is_file():
            return _swallowed_by(make_recipe(read_recipe_yaml(whole / "recipe.yaml")))
        if (folder / "bridge.json").is_file() or is_bridge_file(folder):
            options = read_bridge_description(folder)
            return _models("language", options["language"]) | _models("vision", options["vision"])
    except (LaviError, KeyError, TypeError, AttributeError):
        return {}
    return _models("the image model", {"source": str(run)})


def _written(recipe: Recipe) -> dict[str, Path]:
    """Return the paths outside the run folder that a run writes to."""
    cache = recipe.training.cache
    found = {} if cache is None else {"training.cache.folder": cache.folder}
    for number, (_, config) in _data(recipe):
        index = config.model_dump().get("index")
        if index is not None:
            found[f"data{number}.index"] = index
    return found


def _data(recipe: Recipe) -> list[tuple[str, tuple[str, Any]]]:
    """Return kind and settings of the data, or of each part of a mixture, with the suffix of its field."""
    if isinstance(recipe.data, Mixture.Config):
        parts = flatten_parts(recipe.data.parts)
        return [(f".parts.{number}", part) for number, part in enumerate(parts)]
    return [("", (kind_of_section(recipe.data), recipe.data))]


def _models(name: str, options: Any) -> dict[str, Path]:
    """Return the folders and files of a section's models by field, without models of the hub."""
    options = {"source": options} if isinstance(options, str) else dict(options)
    found = {}
    for field in ("source", "config"):
        if options.get(field) is None:
            continue
        try:
            place = Path(resolve_source(str(options[field])))
        except LaviError:
            continue
        if place.exists():
            found[f"{name}.{field}"] = place
    beside = options.get("passthrough")
    return found if beside is None else found | _models(f"{name}.passthrough", beside)


def _inside(place: Path, folder: Path) -> bool:
    """Whether a path is a folder or inside it, after resolving links."""
    return is_below(expand_path(place), expand_path(folder))
