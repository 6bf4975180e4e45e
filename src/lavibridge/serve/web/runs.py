"""Describes runs for the page's second tab, read-only.

A name from a client only selects among existing folders; it never becomes part of a path.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lavibridge.core.errors import RunError
from lavibridge.core.paths import is_below
from lavibridge.report.evaluations import find_evaluations
from lavibridge.report.run_record import RunRecord, read_run

MAX_CURVE_POINTS = 400
"""Maximum points of a curve."""
_LIVE = 120.0
"""Maximum age in seconds of the log of a run that counts as in training."""
_SHOWN = ("step", "loss", "seconds")


def list_runs(root: Path) -> dict[str, Path]:
    """Return the run folders in a folder by name, the latest first."""
    found = [path for path in root.glob("*") if _is_run(path, root)] if root.is_dir() else []
    return {path.name: path for path in sorted(found, key=_changed, reverse=True)}


def _is_run(path: Path, root: Path) -> bool:
    """Whether a folder is a run whose files lie in the runs folder, not behind a link."""
    recipe = path / "recipe.yaml"
    return recipe.is_file() and is_below(path, root) and is_below(recipe, path)


def run_summary(folder: Path) -> dict[str, Any]:
    """Summarise a run; a damaged one gets its error message."""
    try:
        with _damage_in(folder):
            return _summary(folder, read_run(folder))
    except RunError as error:
        return {"name": folder.name, "state": "damaged", "error": str(error)}


def _summary(folder: Path, run: RunRecord) -> dict[str, Any]:
    last = run.rows[-1] if run.rows else {}
    training = run.recipe.get("training") or {}
    return {
        "name": run.name,
        "state": _state(run),
        "step": last.get("step"),
        "steps": training.get("steps"),
        "loss": last.get("loss"),
        "parts": {part: _source(run.recipe.get(part)) for part in ("language", "connector", "vision")},
        "has_report": (folder / "report.html").is_file(),
        "samples": [path.stem for path in run.samples],
    }


def run_details(folder: Path) -> dict[str, Any]:
    """Return a run's summary with its curve and scores."""
    with _damage_in(folder):
        run = read_run(folder)
        stride = max(1, -(-len(run.rows) // MAX_CURVE_POINTS))
        rows = [*run.rows[::stride], *([run.rows[-1]] if run.rows and (len(run.rows) - 1) % stride else [])]
        return _summary(folder, run) | {
            "curve": [{key: row.get(key) for key in _SHOWN} for row in rows],
            "scores": _scores(run),
        }


def run_preview(folder: Path, name: str) -> bytes | None:
    """Return a preview image of a run by its name; None if there is none."""
    with _damage_in(folder):
        samples = read_run(folder).samples
    found = {path.stem: path for path in samples if is_below(path, folder)}
    return found[name].read_bytes() if name in found else None


def run_report(folder: Path) -> bytes | None:
    """Return the report of a run; None if there is none in its folder."""
    page = folder / "report.html"
    return page.read_bytes() if page.is_file() and is_below(page, folder) else None


@contextmanager
def _damage_in(folder: Path) -> Iterator[None]:
    """Turn every failure of reading a run into a RunError without the path of the server's folder."""
    try:
        yield
    except RunError as error:
        raise RunError(str(error).replace(str(folder), folder.name)) from None
    except (OSError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise RunError(f"{folder.name} is damaged ({type(error).__name__}): its files do not fit") from None


def _scores(run: RunRecord) -> dict[str, dict[str, Any]]:
    """Return the run's own scores by category, for metrics that are shares of images."""
    scores = {}
    for evaluation in find_evaluations([run])[0]:
        suite = evaluation.results["suite"]
        for metric, told in evaluation.results["metrics"].items() if evaluation.is_own else ():
            where = suite if suite == metric else f"{suite}, {metric}"
            found = {"all": told["all"], **told["categories"]} if told.get("unit") == "share" else {}
            for category, each in found.items():
                scores[f"{where}: {category}"] = {key: each.get(key) for key in ("n", "mean", "low", "high")}
    return scores


def _state(run: RunRecord) -> str:
    log = run.folder / "log.jsonl"
    if log.is_file() and time.time() - log.stat().st_mtime < _LIVE and not run.results:
        return "training"
    return "finished" if run.results or run.part_sizes else "begun"


def _changed(folder: Path) -> float:
    log = folder / "log.jsonl"
    return (log if log.is_file() else folder).stat().st_mtime


def _source(part: Any) -> str:
    if not isinstance(part, dict):
        return str(part or "")
    return Path(str(part.get("source") or part.get("kind", ""))).name
