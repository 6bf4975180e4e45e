"""VQAScore: an image-text model's probability that the picture shows the prompt.

    score = P("Yes" | picture, 'Does this figure show "{prompt}"? Please answer yes or no.')

Works with any prompts. Lin et al. 2024, arXiv 2404.01291. transformers lacks their CLIP-FlanT5, and scores of
different models are not comparable.
"""

from collections.abc import Sequence

from PIL import Image
from pydantic import field_validator

from lavibridge.evaluation.base import Score, Task
from lavibridge.evaluation.benchmarks.model_metrics import VisualQuestionMetric

_PLACE = "{}"


class VqaScore(VisualQuestionMetric):
    """Scores how well a picture matches its whole prompt."""

    class Config(VisualQuestionMetric.Config):
        """The options of VQAScore."""

        question: str = 'Does this figure show "{}"? Please answer yes or no.'
        """The question, in which the prompt replaces {}. GenEval 2 asks `Does this image show "{}"? Answer
        the question with Yes or No.`"""

        @field_validator("question")
        @classmethod
        def _has_a_place(cls, value: str) -> str:
            if value.count(_PLACE) != 1:
                raise ValueError("the question must contain {} exactly once, which the prompt replaces")
            return value

    config: "VqaScore.Config"

    def score(self, pictures: Sequence[Image.Image], tasks: Sequence[Task]) -> list[Score]:
        """The probability of yes for each picture."""
        found = []
        for picture, task in zip(pictures, tasks, strict=True):
            question = self.config.question.replace(_PLACE, task.prompt)
            found.append(
                Score(value=self.image_text_model.answer_probabilities(picture, [question], [("Yes",)])[0])
            )
        return found
