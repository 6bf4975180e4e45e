"""What a run reads and where it writes: nothing is written where it would be read as input the next time.

a folder of pictures      all that lies below it and is not hidden is data at the next start
a model's folder          what lies in it is part of which model it is
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lavibridge.core.errors import LaviError, RunError
from lavibridge.core.files import read_json, resolve_source
from lavibridge.core.paths import expand_path
from lavibridge.data.mixture import Mixture, flatten_parts
from lavibridge.data.pictures.walk import is_hidden
from lavibridge.recipes.recipe_text import read_recipe_yaml
from lavibridge.recipes.recipe import Recipe, make_recipe
from lavibridge.recipes.sections import kind_of_section

_READ_WHOLE = "folder"
"""The kind of data that takes every file below a folder for a picture."""
Places = Mapping[str, Path]
"""Folders and files by the field that names them."""


def check_input_paths(recipe: Recipe, out: Path | None) -> None:
    """RunError where a run would write into what it reads, or read out of its own folder."""
    written = _written(recipe)
    if out is not None:
        for name, place in _read_by(recipe).items():
            if _inside(place, out):
                raise RunError(
                    f"{name} is {place}, which lies in the run's own folder {out}: choose an --out of its own"
                )
        written["--out"] = out
    for name, place in written.items():
        refuse_output_inside_inputs(place, name, _swallowed_by(recipe))


def refuse_output_inside_inputs(out: Path, name: str, inputs: Places) -> None:
    """RunError where a place to write lies in one of the folders that are read whole."""
    for what, folder in inputs.items():
        if not _inside(out, folder):
            continue
        below = expand_path(out).resolve().relative_to(expand_path(folder).resolve()).as_posix()
        if what.startswith("data") and is_hidden(below):
            continue
        raise RunError(
            f"{name} is {out}, which lies in {what} ({folder}) and would be read as a part of it the next "
            "time: choose a place beside it"
        )


def _swallowed_by(recipe: Recipe) -> dict[str, Path]:
    """The folders of which everything is read: pictures and models."""
    folders = {
        f"data{number}.path": Path(config.model_dump()["path"])
        for number, (kind, config) in _data(recipe)
        if kind == _READ_WHOLE
    }
    for section in ("language", "vision"):
        folders |= _models(section, getattr(recipe, section).model_dump())
    return folders


def _read_by(recipe: Recipe) -> dict[str, Path]:
    """All that a run reads."""
    found = _swallowed_by(recipe)
    for number, (_, config) in _data(recipe):
        options = config.model_dump()
        for field in ("path", "root"):
            # A hub's id is no path, and one of that name beside it is not read.
            if isinstance(options.get(field), Path):
                found[f"data{number}.{field}"] = options[field]
    return found


def input_paths_of(run: str | Path) -> dict[str, Path]:
    """The folders that a run, a saved bridge or an image model was made from or is: nothing belongs in them.

    What cannot be read is not answered here, but by who opens it.
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
        if (folder / "bridge.json").is_file():
            options = read_json(folder / "bridge.json")
            return _models("language", options["language"]) | _models("vision", options["vision"])
    except (LaviError, KeyError, TypeError, AttributeError):
        return {}
    return _models("the image model", {"source": str(run)})


def _written(recipe: Recipe) -> dict[str, Path]:
    """Where a run writes beside its own folder."""
    cache = recipe.training.cache
    found = {} if cache is None else {"training.cache.folder": cache.folder}
    for number, (_, config) in _data(recipe):
        index = config.model_dump().get("index")
        if index is not None:
            found[f"data{number}.index"] = index
    return found


def _data(recipe: Recipe) -> list[tuple[str, tuple[str, Any]]]:
    """Kind and settings of the data, or of each part of a mixture, with the rest of its name after `data`."""
    if isinstance(recipe.data, Mixture.Config):
        parts = flatten_parts(recipe.data.parts)
        return [(f".parts.{number}", part) for number, part in enumerate(parts)]
    return [("", (kind_of_section(recipe.data), recipe.data))]


def _models(name: str, options: Any) -> dict[str, Path]:
    """The folders of a section's models, by name, shipped ones left out."""
    options = {"source": options} if isinstance(options, str) else dict(options)
    found = (
        {} if options.get("passthrough") is None else _models(f"{name}.passthrough", options["passthrough"])
    )
    try:
        folder = Path(resolve_source(str(options.get("source"))))
    except LaviError:
        return found
    return {f"{name}.source": folder, **found} if folder.is_dir() else found


def _inside(place: Path, folder: Path) -> bool:
    """Whether a place is a folder or lies in it, links followed."""
    return expand_path(place).resolve().is_relative_to(expand_path(folder).resolve())
