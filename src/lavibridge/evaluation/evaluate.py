"""Evaluates a bridge on a suite: generates and scores an image for every prompt, and writes the results.

    out/images/**.png       the images, with prompt and seed in their metadata
    out/records.jsonl       one line per image: prompt, category, seed, file, scores and clauses by metric
    out/results.json        each metric's card, and n, mean and 95 % interval overall, by category and clause
    out/settings.json       suite, settings and bridge

A second call resumes after an interruption; a metric that you add later scores the existing images. Images of
another bridge or of an earlier checkpoint are an error (provenance.py). Several processes
(core/process_rank.py) share the work, and the last one merges it. The prompt determines the noise, so the
results of two bridges can be paired prompt by prompt (`compare_evaluations`).
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
from lavibridge.core.lock import hold_lock, is_lock_file
from lavibridge.core.log import console
from lavibridge.core.process_rank import SINGLE_PROCESS, ProcessRank
from lavibridge.evaluation.base import ImageGenerator, Task
from lavibridge.evaluation.generated_images import check_same_image, generate_missing_images, plan_generation
from lavibridge.evaluation.metrics.base import ImageMetric, Metric, SetMetric
from lavibridge.evaluation.precomputed_images import PrecomputedImages
from lavibridge.evaluation.provenance import (
    PROVENANCE_ADVICE,
    RESULTS_FILE,
    check_provenance,
    provenance_of,
    resolve_image_settings,
)
from lavibridge.evaluation.records import open_record_log, read_records, write_records
from lavibridge.evaluation.scoring import score_images, scoring_hash, unscored_tasks
from lavibridge.evaluation.sets.generated_set import GeneratedSet
from lavibridge.evaluation.suite import (
    ComponentConfig,
    Suite,
    open_suite_metrics,
    open_suite_prompts,
    read_suite,
)
from lavibridge.evaluation.summary import summarize_metric
from lavibridge.evaluation.tasks import make_tasks
from lavibridge.generation.pipeline import BridgePipeline
from lavibridge.generation.quality import EXACT_QUALITY, read_quality


def evaluate(
    bridge: Bridge | BridgePipeline | ImageGenerator | Path,
    suite: str,
    out: Path,
    *,
    categories: Sequence[str] | None = None,
    limit: int | None = None,
    seed: int = 0,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    quality: str = EXACT_QUALITY,
    prompts: str | None = None,
    metrics: Sequence[ComponentConfig] = (),
    part: ProcessRank = SINGLE_PROCESS,
) -> dict[str, Any]:
    """Generate and score the images of a suite; returns the content of results.json.

    `bridge` is a bridge, its pipeline, any other generator, or a folder of existing images. `suite` is a
    shipped name or a path. `categories` selects some of its categories, and `limit` caps the prompts of each.
    `seed` selects another set of noises. `num_inference_steps` and `guidance_scale` override the suite's; a
    `quality` other than exact (`generation/quality.py`) has its own steps, and a bridge with distilled
    guidance uses no guidance by default. `prompts` is the path of the prompt files. `metrics` extend the
    suite's and replace those of the same name. One of several processes (`part`) returns {"waiting": number
    of unfinished images} until the last one is done.

    Raises RecipeError for an unknown suite or option, DataError for an unknown category or a missing prompt
    file, ModelError for a missing model, RunError if `out` is in use or holds other settings.
    """
    if limit is not None and limit < 1:
        raise RecipeError(
            f"limit, the maximum number of prompts per category, must be at least 1, found {limit}"
        )
    plan = read_suite(suite)
    source = open_suite_prompts(plan.prompts, prompts)
    active_metrics = open_suite_metrics(plan.metrics, metrics, source.categories)
    tasks = make_tasks(plan, source, categories, limit, seed)
    active_metrics = _applicable(active_metrics, tasks)
    if isinstance(bridge, Path):
        drawn: dict[str, Any] = {"steps": None, "guidance": None}
        bridge = PrecomputedImages(bridge, tasks)
    else:
        bridge = bridge.bridge if isinstance(bridge, BridgePipeline) else bridge
        drawn = _drawing_settings(plan, bridge, num_inference_steps, guidance_scale, quality)
    settings = {
        "suite": plan.name,
        "version": plan.version,
        **drawn,
        "seed": seed,
        "seeds": plan.seeds,
        "prompts": source.card(),
        **provenance_of(bridge),
    }
    with hold_lock(out, part), _restore_if_refused(out, part):
        settings = _work(bridge, tasks[part.rank :: part.world_size], active_metrics, settings, out, part)
        return _merge(tasks, active_metrics, settings, bridge.origin, out)


def _drawing_settings(
    plan: Suite,
    bridge: Bridge | ImageGenerator,
    num_inference_steps: int | None,
    guidance_scale: float | None,
    quality: str,
) -> dict[str, Any]:
    """Return the caller's settings, or else those of the quality and the suite."""
    of_suite = plan.guidance if bridge.distilled_guidance_scale is None else 1.0
    of_quality = plan.steps if quality == EXACT_QUALITY else read_quality(quality).num_inference_steps
    drawn = {
        "steps": num_inference_steps or of_quality,
        "guidance": of_suite if guidance_scale is None else guidance_scale,
    }
    return drawn if quality == EXACT_QUALITY else {**drawn, "quality": quality}


@contextmanager
def _restore_if_refused(out: Path, part: ProcessRank) -> Iterator[None]:
    """Restore an empty folder if an error occurs before the first image."""
    is_new = part == SINGLE_PROCESS and all(map(is_lock_file, out.iterdir()))
    try:
        yield
    except LaviError:
        if is_new and not (out / "images").exists():
            for path in out.iterdir():
                if not is_lock_file(path):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise


def _applicable(active_metrics: Sequence[Metric], tasks: Sequence[Task]) -> list[Metric]:
    """The metrics that apply to any of the tasks, after each has checked its tasks."""
    applicable = [
        metric for metric in active_metrics if any(metric.applies_to(task.category) for task in tasks)
    ]
    for metric in applicable:
        metric.check([task for task in tasks if metric.applies_to(task.category)])
    return applicable


def _work(
    bridge: Bridge | ImageGenerator,
    tasks: list[Task],
    active_metrics: Sequence[Metric],
    settings: dict[str, Any],
    out: Path,
    part: ProcessRank,
) -> dict[str, Any]:
    """Generate and score one process's share; returns the settings of the folder's images."""
    with _restore_if_refused(out, part):
        cards = {metric.name: scoring_hash(metric) for metric in active_metrics}
        records = read_records(out, cards)
        drawing = plan_generation(out, tasks, records)
        settings = resolve_image_settings(out, settings, records, not (drawing.missing or drawing.damaged))
        if drawing.whole is not None and not isinstance(bridge, Bridge):  # content identifies a bridge
            check_same_image(
                bridge, drawing.whole, records[drawing.whole.key], settings, out, PROVENANCE_ADVICE
            )
        log = open_record_log(out, part.rank)
        try:
            generate_missing_images(bridge, drawing, settings, out, log, card_hash(settings))
            records = read_records(out, cards)
            for metric in active_metrics:
                if isinstance(metric, ImageMetric):
                    score_images(metric, unscored_tasks(metric, tasks, records), records, out, log)
        finally:
            log.close()
        return settings


def _merge(
    tasks: Sequence[Task],
    active_metrics: Sequence[Metric],
    settings: Mapping[str, Any],
    origin: Mapping[str, str],
    out: Path,
) -> dict[str, Any]:
    """Merge the records and write the results once all processes are done."""
    records = read_records(out, {metric.name: scoring_hash(metric) for metric in active_metrics})
    drawn_with = card_hash(settings)
    check_provenance(out, records, drawn_with)  # another process may have used another bridge
    left = {task.key for task in tasks if task.key not in records}
    for metric in active_metrics:
        if isinstance(metric, ImageMetric):
            left |= {task.key for task in unscored_tasks(metric, tasks, records)}
    if left:
        console.print(f"this process's share is done; {len(left)} images of other processes are not")
        return {"waiting": len(left)}
    write_records(out, list(records.values()))
    mine = [records[task.key] for task in tasks]
    undrawn = {record.key: record.undrawn for record in mine if record.undrawn}
    drawn, found = GeneratedSet(tasks, records, out), dict[str, Any]()
    for metric in active_metrics:
        if isinstance(metric, ImageMetric):
            found[metric.name] = summarize_metric(metric, mine)
        elif isinstance(metric, SetMetric):
            found[metric.name] = drawn.measure(metric)
    header = {**settings, "bridge": dict(origin), "drawn_with": drawn_with}
    results = {**header, "n": len(mine), "metrics": found}
    if undrawn:
        results["undrawn"] = dict(Counter(undrawn.values()).most_common())
    write_json(out / RESULTS_FILE, results)
    return results
