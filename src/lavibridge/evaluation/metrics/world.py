"""The exact checker as a metric: a picture scores 1 when it keeps every promise of its prompt, else 0."""

from collections.abc import Sequence

from PIL import Image

from lavibridge.core.errors import DataError
from lavibridge.evaluation.base import Score, Task, unscored
from lavibridge.evaluation.metrics.base import ImageMetric
from lavibridge.world.checker import check, resize_to_canvas
from lavibridge.world.scene import Spec


class WorldMetric(ImageMetric):
    """Judges pictures of the miniature world; larger or smaller ones are brought to 64 x 64 first."""

    unit = "share"

    def check(self, tasks: Sequence[Task]) -> None:
        """Every prompt has to carry its spec; DataError where one does not."""
        for task in tasks:
            if not isinstance(task.metadata, Spec):
                raise DataError(
                    f"the world's checker judges prompts of the world alone, not '{task.prompt[:60]}'; "
                    "take `prompts: world`, or leave the metric `world` out"
                )

    def score(self, pictures: Sequence[Image.Image], tasks: Sequence[Task]) -> list[Score]:
        """The verdict of the checker on each, clause by clause."""
        return [_judge(picture, task.metadata) for picture, task in zip(pictures, tasks, strict=True)]


def _judge(picture: Image.Image, metadata: object) -> Score:
    if not isinstance(metadata, Spec):
        return unscored("the prompt has no spec of the world")
    verdict = check(resize_to_canvas(picture), metadata)
    wrong = {name: verdict.reasons[name] for name, holds in verdict.clauses.items() if not holds}
    clauses = {name: float(holds) for name, holds in verdict.clauses.items()}
    return Score(value=float(verdict.all), clauses=clauses, detail=wrong)
