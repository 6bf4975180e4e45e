"""The exact checker as a metric: a picture scores 1 when it keeps every promise of its prompt, else 0."""

from PIL import Image

from lavibridge.core.errors import DataError
from lavibridge.evaluation.base import Metric, Score
from lavibridge.world.captions import prompts
from lavibridge.world.checker import check
from lavibridge.world.scene import CANVAS, Spec


class WorldMetric(Metric):
    """Judges pictures of the miniature world; larger or smaller ones are brought to 64 x 64 first."""

    def tasks(self, category: str, count: int) -> list[tuple[str, object]]:
        """Prompts of a category of the world with their specs; raises DataError where it has too few."""
        try:
            return [(pair.caption, pair.spec) for pair in prompts(category, count)]
        except ValueError as error:
            raise DataError(str(error)) from None

    def score(self, picture: Image.Image, truth: object) -> Score:
        """The verdict of the checker, clause by clause."""
        if not isinstance(truth, Spec):
            raise DataError(f"the world's checker judges specs, not {type(truth).__name__}")
        if picture.size != (CANVAS, CANVAS):
            picture = picture.resize((CANVAS, CANVAS), Image.Resampling.BOX)
        verdict = check(picture, truth)
        wrong = {name: verdict.reasons[name] for name, holds in verdict.clauses.items() if not holds}
        return Score(value=float(verdict.all), clauses=dict(verdict.clauses), detail=wrong)


METRIC = WorldMetric
