"""WISE_Verified: whether a picture shows what its prompt takes knowledge of the world to see.

    score    1 if the judge finds "1" at least as likely as "0" after the question, else 0
    overall  0.40 culture + 0.12 for each of time, space, biology, physics and chemistry

The judge reads the prompt and the benchmark's explanation of it. The published script lets the same model
write its answer; here the first token decides, and the wording of the question is ours: `question` takes
another. WISE's first release, in which GPT-4o gave three scores, needs a judge that nobody can run.

Niu et al. 2025, arXiv 2503.07265.
"""

import math
import re
from collections.abc import Mapping, Sequence

from PIL import Image
from pydantic import field_validator

from lavibridge.evaluation.base import Score, ScoredTask, Task
from lavibridge.evaluation.benchmarks.model_metrics import VisualQuestionMetric
from lavibridge.evaluation.benchmarks.prompt_metadata import prompt_metadata
from lavibridge.evaluation.benchmarks.totals import total_over_categories
from lavibridge.evaluation.benchmarks.wise import WISE_WEIGHTS, WiseExplanation
from lavibridge.evaluation.stats import Estimate

_PLACE = re.compile(r"\{(prompt|explanation)\}")


class Wise(VisualQuestionMetric):
    """Judges a picture by its prompt and the prompt's explanation."""

    class Config(VisualQuestionMetric.Config):
        """The options of WISE_Verified."""

        model: str = "Qwen/Qwen3.5-35B-A3B"
        """The judge: a folder or a hub id. Published scores are of the default."""
        question: str = (
            'A model generated this image for the prompt "{prompt}". The prompt means: {explanation} '
            "Answer 1 if the image shows exactly this and is realistic enough to judge. Answer 0 if anything "
            "is missing, wrong, ambiguous or malformed. Answer with one digit."
        )
        """The question; the prompt replaces {prompt} and its explanation {explanation}."""

        @field_validator("question")
        @classmethod
        def _has_places(cls, value: str) -> str:
            if sorted(_PLACE.findall(value)) != ["explanation", "prompt"]:
                raise ValueError("the question must contain {prompt} and {explanation} exactly once each")
            return value

    config: "Wise.Config"
    unit = "share"

    def check(self, tasks: Sequence[Task]) -> None:
        """Check that every prompt has an explanation."""
        for task in tasks:
            prompt_metadata(task, WiseExplanation, "wise")

    def score(self, pictures: Sequence[Image.Image], tasks: Sequence[Task]) -> list[Score]:
        """1 or 0 for each picture; `detail` has the probability of 1 against 0."""
        return [self._score(picture, task) for picture, task in zip(pictures, tasks, strict=True)]

    def totals(self, scored: Sequence[ScoredTask]) -> Mapping[str, Estimate]:
        """The overall score, if every category has a score."""
        overall = total_over_categories(scored, WISE_WEIGHTS)
        return {} if math.isnan(overall.mean) else {"overall": overall}

    def _score(self, picture: Image.Image, task: Task) -> Score:
        texts = {
            "prompt": task.prompt,
            "explanation": prompt_metadata(task, WiseExplanation, "wise").text,
        }
        question = _PLACE.sub(lambda place: texts[place[1]], self.config.question)
        one, zero = self.image_text_model.answer_probabilities(
            picture, [question, question], [("1", " 1"), ("0", " 0")]
        )
        share = one / (one + zero) if one + zero > 0 else 0.5
        return Score(value=float(one >= zero), detail={"probability": share})
