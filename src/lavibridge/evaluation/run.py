"""Evaluates a bridge on a suite: draws every prompt, lets each metric judge, and writes it all down.

    out/images/**.png       the pictures, with their prompt and seed in them
    out/records.jsonl       one line a picture: prompt, category, seed, file, scores and clauses by metric
    out/results.json        per metric its card, and n, mean and 95 % interval overall, by category and clause
    out/settings.json       what was drawn, and by which bridge

A second call goes on where the first stopped, and a metric that is added later judges the pictures that are
there; pictures of another bridge, or of this one before more training, are refused (kept.py). Several
processes (core/launch.py) each take a part; the last one puts all together. Noise is named by the prompt,
so results of two bridges pair prompt by prompt (`compare`).
"""

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lavibridge.bridge import Bridge
from lavibridge.core.errors import LaviError, RecipeError
from lavibridge.core.files import write_json
from lavibridge.core.identity import card_hash
from lavibridge.core.launch import SINGLE_PROCESS, ProcessRank
from lavibridge.core.lock import hold, is_lock
from lavibridge.core.log import console
from lavibridge.evaluation.base import ImageGenerator, Task
from lavibridge.evaluation.draw import check_same, draw_missing, plan_drawing
from lavibridge.evaluation.metrics.base import ImageMetric, Metric, SetMetric
from lavibridge.evaluation.precomputed_images import PrecomputedImages
from lavibridge.evaluation.provenance import (
    ADVICE,
    RESULTS,
    check_provenance,
    provenance_of,
    resolve_settings,
)
from lavibridge.evaluation.records import open_log, read_records, write_records
from lavibridge.evaluation.scoring import score_images, short_hash, unscored_tasks
from lavibridge.evaluation.sets.generated_set import GeneratedSet
from lavibridge.evaluation.suite import ComponentConfig, open_metrics, open_prompts, read_suite
from lavibridge.evaluation.summary import summarize
from lavibridge.evaluation.tasks import make_tasks
from lavibridge.generation.pipeline import BridgePipeline
from lavibridge.generation.quality import EXACT, read_quality


def evaluate(
    bridge: Bridge | BridgePipeline | ImageGenerator | Path,
    suite: str,
    out: Path,
    *,
    categories: Sequence[str] | None = None,
    limit: int | None = None,
    seed: int = 0,
    steps: int | None = None,
    guidance: float | None = None,
    quality: str = EXACT,
    prompts: str | None = None,
    metrics: Sequence[ComponentConfig] = (),
    part: ProcessRank = SINGLE_PROCESS,
) -> dict[str, Any]:
    """Draw and judge a suite; returns what is written to results.json.

    `bridge` is a bridge, its pipeline, anything else that draws, or a folder of pictures that were drawn
    elsewhere; `suite` is a shipped name or a path; `categories` a choice of its categories; `limit` the most
    prompts of each; `seed` another set of noises; `steps` and `guidance` replace the suite's, and so do the
    steps of a `quality` (`generation/quality.py`) that is not exact, and where a bridge has learnt guidance
    there is none by default; `prompts` is the path of the prompt files; `metrics` are added to the suite's,
    or replace those of the same name. One of several processes (`part`) returns {"waiting": pictures that
    others have not done}, until the last one is done.

    Raises RecipeError for an unknown suite or option, DataError for an unknown category or an absent prompt
    file, ModelError for a judge that is not there, RunError when `out` is in use, or of other settings.
    """
    if limit is not None and limit < 1:
        raise RecipeError(f"limit is the most prompts of each category and at least 1, found {limit}")
    plan = read_suite(suite)
    source = open_prompts(plan.prompts, prompts)
    judges = open_metrics(plan.metrics, metrics, source.categories)
    tasks = make_tasks(plan, source, categories, limit, seed)
    judges = _asked(judges, tasks)
    if isinstance(bridge, Path):
        drawn: dict[str, Any] = {"steps": None, "guidance": None}
        bridge = PrecomputedImages(bridge, tasks)
    else:
        bridge = bridge.bridge if isinstance(bridge, BridgePipeline) else bridge
        own = read_quality(quality).num_inference_steps
        by_suite = plan.guidance if bridge.distilled_guidance_scale is None else 1.0
        drawn = {
            "steps": steps or (plan.steps if quality == EXACT else own),
            "guidance": by_suite if guidance is None else guidance,
        }
        if quality != EXACT:
            drawn["quality"] = quality
    settings = {
        "suite": plan.name,
        "version": plan.version,
        **drawn,
        "seed": seed,
        "seeds": plan.seeds,
        "prompts": source.card(),
        **provenance_of(bridge),
    }
    with hold(out, part), _nothing_left(out, part):
        settings = _work(bridge, tasks[part.rank :: part.world_size], judges, settings, out, part)
        return _put_together(tasks, judges, settings, bridge.origin, out)


@contextmanager
def _nothing_left(out: Path, part: ProcessRank) -> Iterator[None]:
    """Leave a folder that was empty as it was, where the work is refused before its first picture."""
    is_new = part == SINGLE_PROCESS and all(map(is_lock, out.iterdir()))
    try:
        yield
    except LaviError:
        if is_new and not (out / "images").exists():
            for path in out.iterdir():
                if not is_lock(path):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise


def _asked(judges: Sequence[Metric], tasks: Sequence[Task]) -> list[Metric]:
    """The metrics that judge any of the tasks; each has checked that it can."""
    asked = [metric for metric in judges if any(metric.applies_to(task.category) for task in tasks)]
    for metric in asked:
        metric.check([task for task in tasks if metric.applies_to(task.category)])
    return asked


def _work(
    bridge: Bridge | ImageGenerator,
    tasks: list[Task],
    judges: Sequence[Metric],
    settings: dict[str, Any],
    out: Path,
    part: ProcessRank,
) -> dict[str, Any]:
    """Draw and judge one process's part; returns what the folder's pictures are drawn with."""
    with _nothing_left(out, part):
        cards = {metric.name: short_hash(metric) for metric in judges}
        records = read_records(out, cards)
        drawing = plan_drawing(out, tasks, records)
        settings = resolve_settings(out, settings, records, not (drawing.missing or drawing.damaged))
        if drawing.whole is not None and not isinstance(bridge, Bridge):  # a bridge is known by its content
            check_same(bridge, drawing.whole, records[drawing.whole.key], settings, out, ADVICE)
        log = open_log(out, part.rank)
        try:
            draw_missing(bridge, drawing, settings, out, log, card_hash(settings))
            records = read_records(out, cards)
            for metric in judges:
                if isinstance(metric, ImageMetric):
                    score_images(metric, unscored_tasks(metric, tasks, records), records, out, log)
        finally:
            log.close()
        return settings


def _put_together(
    tasks: Sequence[Task],
    judges: Sequence[Metric],
    settings: Mapping[str, Any],
    origin: Mapping[str, str],
    out: Path,
) -> dict[str, Any]:
    """One file of records and one of results, once all processes are done."""
    records = read_records(out, {metric.name: short_hash(metric) for metric in judges})
    drawn_with = card_hash(settings)
    check_provenance(out, records, drawn_with)  # another process may have been given another bridge
    left = {task.key for task in tasks if task.key not in records}
    for metric in judges:
        if isinstance(metric, ImageMetric):
            left |= {task.key for task in unscored_tasks(metric, tasks, records)}
    if left:
        console.print(f"this part is done; other processes have {len(left)} pictures left")
        return {"waiting": len(left)}
    write_records(out, list(records.values()))
    mine = [records[task.key] for task in tasks]
    undrawn = {record.key: record.undrawn for record in mine if record.undrawn}
    drawn, found = GeneratedSet(tasks, records, out), dict[str, Any]()
    for metric in judges:
        if isinstance(metric, ImageMetric):
            found[metric.name] = summarize(metric, mine)
        elif isinstance(metric, SetMetric):
            found[metric.name] = drawn.measure(metric)
    told = {**settings, "bridge": dict(origin), "drawn_with": drawn_with}
    results = {**told, "n": len(mine), "metrics": found}
    if undrawn:
        results["undrawn"] = dict(Counter(undrawn.values()).most_common())
    write_json(out / RESULTS, results)
    return results
