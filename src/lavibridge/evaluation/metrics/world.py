"""The exact checker as a metric: 1 if the picture satisfies every clause of its prompt, else 0."""

from collections.abc import Sequence

from PIL import Image

from lavibridge.core.errors import DataError
from lavibridge.evaluation.base import Score, Task, unscored_score
from lavibridge.evaluation.metrics.base import ImageMetric
from lavibridge.world.checker import check_picture, resize_to_canvas
from lavibridge.world.scene import SceneSpec


class WorldMetric(ImageMetric):
    """Scores pictures of the miniature world, resized to 64 x 64 if needed."""

    unit = "share"

    def check(self, tasks: Sequence[Task]) -> None:
        """Raise DataError if a prompt has no spec."""
        for task in tasks:
            if not isinstance(task.metadata, SceneSpec):
                raise DataError(
                    f"the world's checker scores only prompts of the world, not '{task.prompt[:60]}': "
                    "use `prompts: world`, or remove the metric `world`"
                )

    def score(self, pictures: Sequence[Image.Image], tasks: Sequence[Task]) -> list[Score]:
        """The checker's verdict on each image, clause by clause."""
        return [_score(picture, task.metadata) for picture, task in zip(pictures, tasks, strict=True)]


def _score(picture: Image.Image, metadata: object) -> Score:
    if not isinstance(metadata, SceneSpec):
        return unscored_score("the prompt has no spec of the world")
    verdict = check_picture(resize_to_canvas(picture), metadata)
    wrong = {name: verdict.reasons[name] for name, holds in verdict.clauses.items() if not holds}
    clauses = {name: float(holds) for name, holds in verdict.clauses.items()}
    return Score(value=float(verdict.all), clauses=clauses, detail=wrong)
