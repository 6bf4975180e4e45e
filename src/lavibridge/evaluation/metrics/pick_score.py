"""PickScore: human preference, predicted by a CLIP-H fine-tuned on people's choices.

    score = exp(scale) cos(picture, prompt)          about 18 to 23

Kirstain et al. 2023 (arXiv 2305.01569).
"""

import math
from collections.abc import Sequence

from PIL import Image

from lavibridge.evaluation.base import Score, Task
from lavibridge.evaluation.dual_encoder import DualEncoderMetric


class PickScore(DualEncoderMetric):
    """The scaled cosine of the fine-tuned CLIP."""

    class Config(DualEncoderMetric.Config):
        """The options of PickScore."""

        model: str = "yuvalkirstain/PickScore_v1"
        """The fine-tuned CLIP, a folder or a hub id with its tokenizer and processor."""

    config: "PickScore.Config"

    def score(self, pictures: Sequence[Image.Image], tasks: Sequence[Task]) -> list[Score]:
        """The scaled cosines."""
        found = self.dual_encoder.matches(pictures, [task.prompt for task in tasks], "cut")
        scale = math.exp(float(self.network.model.logit_scale))
        return [Score(value=scale * match.cosine, clauses={"cut": match.cut}) for match in found]
