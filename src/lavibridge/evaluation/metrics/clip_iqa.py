"""CLIP-IQA: scores image quality by the nearer of two opposite texts under CLIP, without the prompt.

    score = softmax(100 cos(picture, "Good photo."), 100 cos(picture, "Bad photo."))[0]

Wang, Chan and Loy 2023 (arXiv 2207.12396) use CLIP's ResNet-50 without its positional embedding, which
transformers lacks. Numbers of a ViT differ from the paper's; the card names the model.
"""

from collections.abc import Sequence

from PIL import Image
from pydantic import Field

from lavibridge.evaluation.base import Score, Task
from lavibridge.evaluation.dual_encoder import DualEncoderMetric

_SHARPNESS = 100.0


class CLIPIQA(DualEncoderMetric):
    """The probability of the good text; with several pairs the mean, with each pair as a clause."""

    class Config(DualEncoderMetric.Config):
        """The options of CLIP-IQA."""

        model: str = "openai/clip-vit-base-patch16"
        """A CLIP: a folder, a shipped one (`mini-clip`) or a hub id."""
        pairs: tuple[tuple[str, str], ...] = Field(default=(("Good photo.", "Bad photo."),), min_length=1)
        """Opposite texts, the better one first."""

    config: "CLIPIQA.Config"

    def score(self, pictures: Sequence[Image.Image], tasks: Sequence[Task]) -> list[Score]:
        """The probabilities of the good texts."""
        texts = self.dual_encoder.texts([text for pair in self.config.pairs for text in pair])
        cosines = self.dual_encoder.pictures(pictures) @ texts.T
        shares = (_SHARPNESS * cosines).unflatten(1, (-1, 2)).softmax(dim=-1)[:, :, 0].tolist()
        names = [good for good, _ in self.config.pairs]
        found = []
        for row in shares:
            clauses = dict(zip(names, row, strict=True)) if len(row) > 1 else {}
            found.append(Score(value=sum(row) / len(row), clauses=clauses))
        return found
