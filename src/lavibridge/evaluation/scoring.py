"""Scores the images that a metric has not scored yet, from their files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lavibridge.core.errors import RunError
from lavibridge.core.identity import card_hash
from lavibridge.core.log import JsonLog, progress_bar
from lavibridge.evaluation.base import Task, unscored_score
from lavibridge.evaluation.generated_images import read_generated_image
from lavibridge.evaluation.metrics.base import ImageMetric, Metric
from lavibridge.evaluation.records import Record, RecordKey, score_record


def scoring_hash(metric: Metric) -> str:
    """A hash of twelve digits that identifies the metric's card."""
    return card_hash(metric.card())


def unscored_tasks(
    metric: ImageMetric, tasks: Sequence[Task], records: Mapping[RecordKey, Record]
) -> list[Task]:
    """The tasks that the metric applies to and, as currently configured, has not scored."""
    by = scoring_hash(metric)
    return [
        task
        for task in tasks
        if metric.applies_to(task.category)
        and not (task.key in records and records[task.key].is_scored(metric.name, by))
    ]


def score_images(
    metric: ImageMetric, tasks: Sequence[Task], records: Mapping[RecordKey, Record], out: Path, log: JsonLog
) -> None:
    """Score the tasks' images in batches and append each score to the log."""
    if not tasks:
        return
    by = scoring_hash(metric)
    with progress_bar("pictures") as bar:
        shown = bar.add_task(f"scoring {metric.name}", total=len(tasks), status="")
        for start in range(0, len(tasks), metric.batch):
            batch = tasks[start : start + metric.batch]
            drawn = [task for task in batch if not records[task.key].undrawn]
            pictures = [read_generated_image(out, records[task.key]) for task in drawn]
            scores = metric.score(pictures, drawn) if drawn else []
            if len(scores) != len(drawn):
                raise RunError(f"metric '{metric.name}' scored {len(scores)} of {len(drawn)} images")
            found = dict(zip((task.key for task in drawn), scores, strict=True))
            for task in batch:
                score = found.get(task.key) or unscored_score(f"not drawn: {records[task.key].undrawn}")
                log.write(score_record(task, records[task.key].drawing, metric.name, by, score))
            bar.update(shown, advance=len(batch), status=batch[-1].category)
    metric.free()
