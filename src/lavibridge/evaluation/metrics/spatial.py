"""T2I-CompBench's spatial score: whether both objects appear, in the relation of the prompt.

benchmarks/spatial.py has the rule. No maintained library has the published detector, UniDet. Any detector of
transformers replaces it, so scores are comparable with each other but not with published ones.
"""

from collections.abc import Sequence

from PIL import Image

from lavibridge.evaluation.base import Score, Task, unscored_score
from lavibridge.evaluation.benchmarks.detectors.base import Detector
from lavibridge.evaluation.benchmarks.model_metrics import DetectorMetric, detect_objects
from lavibridge.evaluation.benchmarks.prompt_metadata import prompt_metadata
from lavibridge.evaluation.benchmarks.spatial import SpatialRelation, spatial_score


class Spatial(DetectorMetric):
    """Scores the relative position of two objects."""

    def check(self, tasks: Sequence[Task]) -> None:
        """Check that every prompt states a relation."""
        for task in tasks:
            prompt_metadata(task, SpatialRelation, "compbench")

    def score(self, pictures: Sequence[Image.Image], tasks: Sequence[Task]) -> list[Score]:
        """The score of each picture; `detail` has the boxes."""
        relations = [prompt_metadata(task, SpatialRelation, "compbench") for task in tasks]
        return [
            score_spatial_relation(self.detector, picture, relation, self.config.threshold)
            for picture, relation in zip(pictures, relations, strict=True)
        ]


def score_spatial_relation(
    detector: Detector, picture: Image.Image, relation: SpatialRelation, threshold: float
) -> Score:
    """The score of a picture; unscored if the detector does not know the objects."""
    boxes = detect_objects(detector, picture, (relation.first, relation.second), threshold)
    if isinstance(boxes, str):
        return unscored_score(boxes)
    value = spatial_score(relation, boxes, *picture.size)
    return Score(value=value, detail={"boxes": [box.record() for box in boxes]})
