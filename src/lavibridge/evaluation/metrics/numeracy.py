"""T2I-CompBench++'s numeracy score: whether each object appears, and as often as the prompt says.

benchmarks/numeracy.py has the rule. metrics/spatial.py explains the choice of detector.
"""

from collections.abc import Sequence

from PIL import Image

from lavibridge.evaluation.base import Score, Task, unscored_score
from lavibridge.evaluation.benchmarks.model_metrics import DetectorMetric, detect_objects
from lavibridge.evaluation.benchmarks.numeracy import ObjectCounts, numeracy_score
from lavibridge.evaluation.benchmarks.prompt_metadata import prompt_metadata


class Numeracy(DetectorMetric):
    """Scores the number of objects."""

    def check(self, tasks: Sequence[Task]) -> None:
        """Check that every prompt counts objects."""
        for task in tasks:
            prompt_metadata(task, ObjectCounts, "compbench")

    def score(self, pictures: Sequence[Image.Image], tasks: Sequence[Task]) -> list[Score]:
        """The score of each picture; the clause `exact` is the share of objects with the exact count."""
        counts = [prompt_metadata(task, ObjectCounts, "compbench") for task in tasks]
        return [self._score(picture, each) for picture, each in zip(pictures, counts, strict=True)]

    def _score(self, picture: Image.Image, counts: ObjectCounts) -> Score:
        names = tuple(counts.things)
        boxes = detect_objects(self.detector, picture, names, self.config.threshold)
        if isinstance(boxes, str):
            return unscored_score(boxes)
        value, found = numeracy_score(counts, boxes)
        exact = sum(found[name] == n for name, n in counts.things.items()) / len(names)
        detail = {"found": found, "boxes": [box.record() for box in boxes]}
        return Score(value=value, clauses={"exact": exact}, detail=detail)
