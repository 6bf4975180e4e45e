"""Computes set metrics of the generated images, with intervals over prompts.

    low, high = value -+ t s,   s^2 = (g - 1) / g sum over groups of (value without the group - their mean)^2

The delete-a-group jackknife with g = 20 groups of prompts (Quenouille 1956, Biometrika 43; Kott 2001, J. Off.
Stat. 17), with Student's t of g - 1 degrees of freedom. A bootstrap would duplicate images, which set
distances mistake for a lack of diversity. The interval covers the generated set and treats the reference as
fixed.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lavibridge.core.errors import DataError
from lavibridge.core.log import progress_bar
from lavibridge.evaluation.base import Task
from lavibridge.evaluation.generated_images import read_generated_image
from lavibridge.evaluation.metrics.base import MIN_SET_IMAGES, SetMetric
from lavibridge.evaluation.records import Record, RecordKey
from lavibridge.evaluation.sets.features import ReferenceFeatures, SetFeatures, extract_features
from lavibridge.evaluation.sets.reference import open_reference
from lavibridge.evaluation.stats import Estimate

JACKKNIFE_GROUPS = 20
JACKKNIFE_T = 2.093024054408263
"""The 97.5th percentile of Student's t with 19 degrees of freedom."""


class GeneratedSet:
    """The generated images of an evaluation; metrics with the same extractor share features."""

    def __init__(self, tasks: Sequence[Task], records: Mapping[RecordKey, Record], out: Path) -> None:
        self.tasks, self.records, self.out = tasks, records, out
        self._made: dict[str, tuple[SetFeatures, ReferenceFeatures]] = {}

    def measure(self, metric: SetMetric) -> dict[str, Any]:
        """Compute the metric's card and estimates for the images that it applies to."""
        applicable = [task for task in self.tasks if metric.applies_to(task.category)]
        mine = [task for task in applicable if not self.records[task.key].undrawn]
        reasons = Counter(reason for task in applicable if (reason := self.records[task.key].undrawn))
        excluded = {"unscored": {f"not drawn: {reason}": n for reason, n in reasons.most_common()}}
        if len(mine) < MIN_SET_IMAGES:
            return {"card": metric.card(), "unit": metric.unit, "totals": {}, **excluded}
        drawn, reference = self._features(metric, mine)
        prompts = [f"{task.category}/{task.prompt}" for task in mine]
        found = jackknife(metric.against(reference), drawn, prompts, metric.name)
        card = {**metric.card(), **reference.card}
        totals = {name: _within(metric.bounds, value).record() for name, value in found.items()}
        found_all = {"card": card, "unit": metric.unit, "totals": totals}
        return {**found_all, **excluded} if reasons else found_all

    def _features(self, metric: SetMetric, tasks: Sequence[Task]) -> tuple[SetFeatures, ReferenceFeatures]:
        extractor, source = metric.extractor, metric.config.reference
        key = json.dumps([extractor.card(), source, metric.config.categories], sort_keys=True)
        if key not in self._made:
            reference = open_reference(source, extractor, tasks)
            pictures: Iterator[Image.Image] = (
                read_generated_image(self.out, self.records[task.key]) for task in tasks
            )
            drawn = extract_features(extractor, pictures, len(tasks), "drawn")
            metric.free()
            _check_width(metric.name, drawn, reference)
            self._made[key] = drawn, reference
        return self._made[key]


def _within(bounds: tuple[float, float], value: Estimate) -> Estimate:
    low, high = (
        bound if math.isnan(bound) else min(max(bound, bounds[0]), bounds[1])
        for bound in (value.low, value.high)
    )
    return replace(value, low=low, high=high)


def _check_width(name: str, drawn: SetFeatures, reference: ReferenceFeatures) -> None:
    width = reference.width
    if width != drawn.shape[1]:
        raise DataError(
            f"reference: its features have width {width}, but those of '{name}' {drawn.shape[1]}: give a "
            f"reference of "
            "the same network"
        )


def jackknife(
    measure: Callable[[SetFeatures], dict[str, float]], drawn: SetFeatures, prompts: Sequence[str], what: str
) -> dict[str, Estimate]:
    """Estimates over all rows, with intervals unless there are fewer prompts than groups."""
    places = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
    group = np.array([places[prompt] % JACKKNIFE_GROUPS for prompt in prompts])
    whole = measure(drawn)
    if len(places) < JACKKNIFE_GROUPS:
        return {
            name: Estimate(n=len(drawn), mean=value, low=math.nan, high=math.nan)
            for name, value in whole.items()
        }
    without = []
    with progress_bar("groups") as bar:
        shown = bar.add_task(f"interval of {what}", total=JACKKNIFE_GROUPS, status="")
        for excluded in range(JACKKNIFE_GROUPS):
            without.append(measure(drawn[group != excluded]))
            bar.advance(shown)
    found = {}
    for name, value in whole.items():
        values = np.array([each[name] for each in without])
        reach = JACKKNIFE_T * math.sqrt(
            (JACKKNIFE_GROUPS - 1) / JACKKNIFE_GROUPS * float(((values - values.mean()) ** 2).sum())
        )
        found[name] = Estimate(n=len(drawn), mean=value, low=value - reach, high=value + reach)
    return found
