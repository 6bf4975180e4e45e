"""Computes and caches the ceilings of a study's conditions, at every layer and at the read-out.

A ceiling does not depend on training, so each language model and read-out needs one. OUT/ceiling.json caches
it by the content of the model's files, the options and the library versions.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from lavibridge.bridge import choices
from lavibridge.connectors.parts.read_out import ReadOutChoice
from lavibridge.core.errors import LaviError
from lavibridge.core.files import read_json, write_json
from lavibridge.core.identity import library_versions
from lavibridge.core.log import console, progress_bar
from lavibridge.study.ceiling import measure_ceiling
from lavibridge.study.cells import Cell
from lavibridge.training.checkpoints.run_fingerprint import section_fingerprint

_CACHE = "ceiling.json"
_LIBRARIES = ("lavibridge", "torch", "transformers", "tokenizers")
"""Libraries whose versions may change a ceiling; ours also defines the phrases."""
READ_OUT_ADAPTER: TypeAdapter[ReadOutChoice | None] = TypeAdapter(ReadOutChoice | None)


@dataclass(frozen=True, kw_only=True)
class CeilingAccuracy:
    """An accuracy with its interval over words."""

    n: int
    words: int
    mean: float
    low: float
    high: float


Ceiling = Mapping[str, Mapping[str, CeilingAccuracy]]
"""By `read` or `layer K`, then by `color` and `shape`."""


def cached_ceilings(cells: Sequence[Cell], out: Path, *, compute: bool = True) -> dict[str, Ceiling]:
    """Return the ceiling of every condition; with `compute=False`, only cached ones.

    Reports and skips a language model that cannot be loaded.
    """
    path = out / _CACHE
    kept: dict[str, Any] = read_json(path) if path.is_file() else {}
    conditions = {cell.condition: _options(cell) for cell in cells}
    keys = {name: key for name, options in conditions.items() if (key := _key(options)) is not None}
    missing = {key: conditions[name] for name, key in keys.items() if key not in kept}
    if missing and compute:
        with progress_bar("language models") as bar:
            task = bar.add_task("measuring ceilings", total=len(missing), status="")
            for key, options in missing.items():
                try:
                    kept[key] = _compute(options)
                except LaviError as error:
                    _report_missing(options, error)
                bar.advance(task)
        write_json(path, kept)
    return {name: _read(kept[key]) for name, key in keys.items() if key in kept}


def _options(cell: Cell) -> dict[str, Any]:
    """The language model of a cell and its read-out."""
    if cell.native:
        source = cell.recipe.vision.model_dump()["source"]
        return {"language": {"source": source, "see_padding": True}, "read": None}
    read = cell.recipe.connector.model_dump(mode="json").get("read")
    return {"language": cell.recipe.language.model_dump(mode="json"), "read": read}


def _compute(options: Mapping[str, Any]) -> dict[str, Any]:
    language = choices.model_of_choice("language", options["language"]).eval()
    found = measure_ceiling(language, READ_OUT_ADAPTER.validate_python(options["read"]))
    return {name: each.record() for name, each in found.items()}


def _key(options: Mapping[str, Any]) -> str | None:
    """The cache key, by content; reports a missing model and returns None."""
    try:
        files = section_fingerprint(options["language"])
    except LaviError as error:
        _report_missing(options, error)
        return None
    language = {
        name: each for name, each in options["language"].items() if name not in ("source", "revision")
    }
    return json.dumps([files, language, options["read"], library_versions(*_LIBRARIES)], sort_keys=True)


def _report_missing(options: Mapping[str, Any], error: LaviError) -> None:
    console.print(f"note: no ceiling for {options['language']['source']}: {error}")


def _read(kept: Mapping[str, Any]) -> Ceiling:
    return {
        name: {what: CeilingAccuracy(words=each["words"][what], **each[what]) for what in ("color", "shape")}
        for name, each in kept.items()
    }
