"""Run folders -> one self-contained HTML page: what was trained, scores, pictures, curves.

A pure function of the folders: the same folders give the same bytes. Pictures and charts are inside the page.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from lavibridge.core.errors import RunError
from lavibridge.core.files import write_atomic
from lavibridge.report.curves import curves
from lavibridge.report.records import RunRecord, read_run
from lavibridge.report.scores import score_tables

try:
    from jinja2 import Environment, PackageLoader, StrictUndefined
except ImportError:
    raise RunError(
        "reports are written with Jinja2, which is missing: pip install 'lavibridge[report]'"
    ) from None

SHOWN = 12
"""Most training samples shown per run, spread evenly over training."""


SHOWN_ENVIRONMENT = ("device", "device_name", "threads", "torch", "lavibridge")
"""What is shown of the environment at once; the rest is folded away below."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture inside the page."""

    source: str
    """Data URI."""
    caption: str
    alt: str
    width: int
    height: int


def write_report(folders: Sequence[Path], page: Path) -> Path:
    """Read the run folders, write the page, return its path. Raises RunError for what is no run folder."""
    if not folders:
        raise RunError("a report needs at least one run folder")
    write_atomic(page, render([read_run(folder) for folder in folders]))
    return page


def environment() -> Environment:
    """The templates of this room; a name that a template lacks is an error."""
    return Environment(
        loader=PackageLoader("lavibridge.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(runs: Sequence[RunRecord]) -> str:
    """The page as text."""
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            title=" and ".join(run.name for run in runs),
            runs=[_described(run) for run in runs],
            tables=score_tables(runs),
            curves=curves(runs),
        )
    )


def _described(run: RunRecord) -> dict[str, Any]:
    return {
        "name": run.name,
        "parts": {room: _named(run.recipe.get(room)) for room in ("language", "connector", "vision")},
        "facts": _facts(run),
        "sheet": _picture(run.sheet, "Contact sheet") if run.sheet else None,
        "samples": [_picture(path, _sample_name(path, run.folder)) for path in _spread(run.samples)],
        "samples_left_out": max(len(run.samples) - SHOWN, 0),
        "recipe": yaml.safe_dump(run.recipe, sort_keys=False, allow_unicode=True),
        "environment": yaml.safe_dump(run.environment, sort_keys=False, allow_unicode=True),
    }


def _named(part: Any) -> str:
    """A part of a recipe in a few words: where it comes from, else its kind."""
    if isinstance(part, dict):
        source = part.get("source")
        return Path(str(source)).name if source else str(part.get("kind", "not named"))
    return str(part or "not named")


def _facts(run: RunRecord) -> list[tuple[str, str]]:
    """What a reader asks first, as pairs of question and answer."""
    training, data = run.recipe.get("training") or {}, run.recipe.get("data") or {}
    facts = []
    if run.rows:
        last = run.rows[-1]
        facts.append(
            ("steps", f"{last['step']}" + (f" of {training['steps']}" if "steps" in training else ""))
        )
        if isinstance(last.get("seconds"), int | float):
            facts.append(("time", _duration(last["seconds"])))
        if isinstance(last.get("peak_memory_mib"), int | float):
            facts.append(("peak memory", f"{last['peak_memory_mib']:,.0f} MiB"))
        for part, rate in (last.get("lr") or {}).items():
            facts.append((f"last learning rate, {part.replace('_', ' ')}", f"{rate:.3g}"))
    if "batch" in training:
        facts.append(("batch", str(training["batch"])))
    if "kind" in data:
        facts.append(("data", " ".join(str(data[key]) for key in ("kind", "path") if data.get(key))))
    if run.rejected:
        facts.append(("pictures that could not be read", f"{run.rejected} (rejected.jsonl)"))
    facts += [(f"saved {part.replace('_', ' ')}", _size(size)) for part, size in run.trained.items()]
    for key, value in run.environment.items():
        if key.startswith("trained_") and isinstance(value, int):
            facts.append((f"weights in {key.removeprefix('trained_').replace('_', ' ')}", f"{value:,}"))
        elif key in SHOWN_ENVIRONMENT:
            facts.append((key.replace("_", " "), str(value)))
    return facts


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def _spread(paths: tuple[Path, ...]) -> list[Path]:
    """At most SHOWN paths, evenly spread, the first and the last among them."""
    if len(paths) <= SHOWN:
        return list(paths)
    return [paths[round(place * (len(paths) - 1) / (SHOWN - 1))] for place in range(SHOWN)]


def _sample_name(path: Path, folder: Path) -> str:
    return (
        path.relative_to(folder / "samples").with_suffix("").as_posix().replace("-", " ").replace("/", ", ")
    )


def _picture(path: Path, caption: str) -> Picture:
    """A PNG as a data URI; its own text (prompt, description) becomes the alternative text."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            width, height = image.size
            told = [str(image.info[key]) for key in ("description", "prompt") if image.info.get(key)]
    except OSError as error:
        raise RunError(f"{path} cannot be read as a PNG: {error}") from None
    source = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
    alt = f"{caption}: {'; '.join(told)}" if told else caption
    return Picture(source=source, caption=caption, alt=alt, width=width, height=height)
