"""T2I-CompBench++'s numeracy score: is each thing there, and as often as the prompt has it?

The rule is in benchmarks/numeracy.py; of the detector the same is true as in metrics/spatial.py.
"""

from collections.abc import Sequence

from PIL import Image

from lavibridge.evaluation.base import Score, Task, unscored
from lavibridge.evaluation.benchmarks.model_metrics import DetectorMetric, detect_objects
from lavibridge.evaluation.benchmarks.numeracy import Counts, numeracy_score
from lavibridge.evaluation.benchmarks.prompt_metadata import metadata_of


class Numeracy(DetectorMetric):
    """Judges how many things there are."""

    def check(self, tasks: Sequence[Task]) -> None:
        """Every prompt must count something."""
        for task in tasks:
            metadata_of(task, Counts, "compbench")

    def score(self, pictures: Sequence[Image.Image], tasks: Sequence[Task]) -> list[Score]:
        """The score of each picture; the clause `exact` is the share of things found exactly as often."""
        counts = [metadata_of(task, Counts, "compbench") for task in tasks]
        return [self._score(picture, each) for picture, each in zip(pictures, counts, strict=True)]

    def _score(self, picture: Image.Image, counts: Counts) -> Score:
        names = tuple(counts.things)
        boxes = detect_objects(self.detector, picture, names, self.config.threshold)
        if isinstance(boxes, str):
            return unscored(boxes)
        value, found = numeracy_score(counts, boxes)
        exact = sum(found[name] == n for name, n in counts.things.items()) / len(names)
        detail = {"found": found, "boxes": [box.record() for box in boxes]}
        return Score(value=value, clauses={"exact": exact}, detail=detail)
