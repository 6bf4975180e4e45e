"""Evaluates a bridge on a suite: draws every prompt once a seed, judges each picture, writes it all down.

    out/images/NNNN.png     the pictures, with their prompt and seed in them
    out/records.jsonl       one line a picture: prompt, category, seed, file, clauses, all, score, detail
    out/results.json        per category n, mean and 95 % interval, and the same for each clause

A second call goes on where the first stopped. Noise is named by the prompt, so results of two bridges pair
prompt by prompt.
"""

import json
import math
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lavibridge.core.errors import RecipeError, RunError
from lavibridge.core.files import write_atomic, write_json
from lavibridge.core.log import JsonLog, progress
from lavibridge.evaluation.base import Draws, Metric, Suite, Task, noise_seed, pick, read_suite
from lavibridge.evaluation.stats import estimate
from lavibridge.generation.sheet import save_png

CHUNK = 32
"""Pictures drawn between two writes."""
SAME_PICTURE = 1.0
"""Mean difference of 255 up to which two drawings are the same picture: rounding on another batch."""


def evaluate(
    bridge: Draws,
    suite: str,
    out: Path,
    *,
    categories: Sequence[str] | None = None,
    limit: int | None = None,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
) -> dict[str, Any]:
    """Draw and judge a suite; returns what is written to results.json.

    `suite` is a shipped name or a path; `categories` a choice of its categories; `limit` the most prompts of
    each; `seed` another set of noises; `steps` and `guidance` replace the suite's. Raises RecipeError for an
    unknown suite, DataError for an unknown category, RunError when `out` holds pictures of another bridge or
    other settings.
    """
    plan = read_suite(suite)
    chosen = pick(plan, categories)
    if limit is not None and limit < 1:
        raise RecipeError(f"limit is the most prompts of each category and at least 1, found {limit}")
    metric = load_metric(plan.metric)
    settings = {
        "suite": plan.name,
        "version": plan.version,
        "steps": steps if steps is not None else plan.steps,
        "guidance": guidance if guidance is not None else plan.guidance,
        "seed": seed,
    }
    tasks = list(_tasks(plan, metric, chosen, limit, seed))
    records = read_records(out)
    if records:
        _check_same(out, records[0], settings, bridge)
    _draw_missing(bridge, metric, tasks, records, settings, out)
    found = {_key(record): record for record in records}
    results = summarize(settings, [found[task.key] for task in tasks])
    write_json(out / "results.json", results)
    return results


def load_metric(name: str) -> Metric:
    """The metric in the file of that name; raises RecipeError listing the files there are."""
    known = sorted(p.stem for p in (Path(__file__).parent / "metrics").glob("*.py") if p.stem != "__init__")
    if name not in known:
        raise RecipeError(f"there is no metric '{name}' (there are {', '.join(known)})")
    metric: Metric = import_module(f"lavibridge.evaluation.metrics.{name}").METRIC()
    return metric


def summarize(settings: dict[str, Any], records: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Means with intervals by category and by clause; a clause counts where it applies."""
    scores: dict[str, dict[str, list[float]]] = {}
    clauses: dict[str, dict[str, dict[str, list[float]]]] = {}
    for record in records:
        category, prompt = record["category"], record["prompt"]
        score = math.nan if record["score"] is None else float(record["score"])
        scores.setdefault(category, {}).setdefault(prompt, []).append(score)
        by_clause = clauses.setdefault(category, {})
        for name, holds in record["clauses"].items():
            by_clause.setdefault(name, {}).setdefault(prompt, []).append(float(holds))
    categories = {
        category: {
            **estimate(each).record(),
            "clauses": {name: estimate(found).record() for name, found in clauses[category].items()},
        }
        for category, each in scores.items()
    }
    return {**settings, "n": sum(each["n"] for each in categories.values()), "categories": categories}


def read_records(out: Path) -> list[dict[str, Any]]:
    """The records that a folder holds; a last line cut short by a crash is taken off the file."""
    path = out / "records.jsonl"
    if not path.is_file():
        return []
    records: list[dict[str, Any]] = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for i, line in enumerate(lines):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            if i < len(lines) - 1:
                raise RunError(f"{path}: line {i + 1} is damaged; delete the file to draw anew") from None
            write_atomic(path, "".join(f"{kept}\n" for kept in lines[:-1]))
    return records


def _tasks(
    suite: Suite, metric: Metric, categories: tuple[str, ...], limit: int | None, seed: int
) -> Iterable[Task]:
    for category in categories:
        count = suite.categories[category]
        for prompt, truth in metric.tasks(category, count if limit is None else min(limit, count)):
            for number in range(suite.seeds):
                noise = noise_seed(suite, category, prompt, number, seed)
                yield Task(category=category, prompt=prompt, seed=noise, truth=truth)


def _key(record: dict[str, Any]) -> tuple[str, str, int]:
    return record["category"], record["prompt"], record["seed"]


def _check_same(out: Path, first: dict[str, Any], settings: dict[str, Any], bridge: Draws) -> None:
    """Refuse to go on with the pictures of other settings, or of another bridge: the first is drawn again."""
    other = "give another --out, or delete images and records.jsonl there to draw anew"
    if first["settings"] != settings:
        raise RunError(f"{out} holds pictures drawn with {first['settings']}, not {settings}: {other}")
    again = bridge.generate(
        [first["prompt"]], seed=[first["seed"]], steps=settings["steps"], guidance=settings["guidance"]
    )[0]
    try:
        with Image.open(out / first["file"]) as picture:
            before = np.asarray(picture.convert("RGB"), dtype=np.float32)
    except OSError as error:
        raise RunError(f"{out / first['file']} cannot be read ({error}): {other}") from None
    now = np.asarray(again.convert("RGB"), dtype=np.float32)
    if before.shape != now.shape or float(np.abs(before - now).mean()) > SAME_PICTURE:
        raise RunError(
            f"{out} holds pictures of another bridge, or of this one before more training: {other}"
        )


def _draw_missing(
    bridge: Draws,
    metric: Metric,
    tasks: list[Task],
    records: list[dict[str, Any]],
    settings: dict[str, Any],
    out: Path,
) -> None:
    """Draw and judge what has no record yet, appending to `records` and to the file."""
    done = {_key(record) for record in records}
    missing = [task for task in tasks if task.key not in done]
    if not missing:
        return
    log = JsonLog(out / "records.jsonl")
    try:
        with progress("pictures") as bar:
            shown = bar.add_task(
                "evaluating", total=len(tasks), completed=len(tasks) - len(missing), status=""
            )
            for start in range(0, len(missing), CHUNK):
                chunk = missing[start : start + CHUNK]
                pictures = bridge.generate(
                    [task.prompt for task in chunk],
                    seed=[task.seed for task in chunk],
                    steps=settings["steps"],
                    guidance=settings["guidance"],
                )
                for task, picture in zip(chunk, pictures, strict=True):
                    record = _judge(metric, task, picture, out, f"images/{len(records):04d}.png")
                    record["settings"] = settings
                    log.write(record)
                    records.append(record)
                bar.update(shown, advance=len(chunk), status=chunk[-1].category)
    finally:
        log.close()


def _judge(metric: Metric, task: Task, picture: Image.Image, out: Path, file: str) -> dict[str, Any]:
    """Save a picture and say what the metric says of it."""
    score = metric.score(picture, task.truth)
    save_png(out / file, picture, {"prompt": task.prompt, "seed": str(task.seed)})
    return {
        "prompt": task.prompt,
        "category": task.category,
        "seed": task.seed,
        "file": file,
        "clauses": dict(score.clauses),
        "all": None if math.isnan(score.value) else score.value == 1,
        "score": None if math.isnan(score.value) else score.value,
        "detail": dict(score.detail),
    }
