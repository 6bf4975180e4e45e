"""VQAScore: how sure an image-text model is that the picture shows the prompt.

    score = P("Yes" | picture, 'Does this figure show "{prompt}"? Please answer yes or no.')

Any prompts do. Lin et al. 2024, arXiv 2404.01291, whose CLIP-FlanT5 is not in transformers: scores of
different models do not compare.
"""

from collections.abc import Sequence

from PIL import Image
from pydantic import field_validator

from lavibridge.evaluation.base import Score, Task
from lavibridge.evaluation.benchmarks.model_metrics import VisualQuestionMetric

PLACE = "{}"


class VqaScore(VisualQuestionMetric):
    """Judges how well a picture fits its prompt as a whole."""

    class Config(VisualQuestionMetric.Config):
        """The options of VQAScore."""

        question: str = 'Does this figure show "{}"? Please answer yes or no.'
        """What it is asked, with {} where the prompt goes. GenEval 2 asks
        `Does this image show "{}"? Answer the question with Yes or No.`"""

        @field_validator("question")
        @classmethod
        def _has_a_place(cls, value: str) -> str:
            if value.count(PLACE) != 1:
                raise ValueError("the question should have {} once, where the prompt goes")
            return value

    config: "VqaScore.Config"

    def score(self, pictures: Sequence[Image.Image], tasks: Sequence[Task]) -> list[Score]:
        """The probability of yes for each picture."""
        found = []
        for picture, task in zip(pictures, tasks, strict=True):
            question = self.config.question.replace(PLACE, task.prompt)
            found.append(
                Score(value=self.image_text_model.answer_probabilities(picture, [question], [("Yes",)])[0])
            )
        return found
