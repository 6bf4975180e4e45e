"""CLIP score: the raw cosine between the embeddings of a picture and its prompt.

    score = cos(picture, prompt)          SD 1.x on COCO: about 0.31 with ViT-B/32, 0.26 with ViT-L/14

Others report 100 times this, or 2.5 max(cos, 0) with the prefix "A photo depicts" (Hessel et al. 2021, arXiv
2104.08718). CLIP reads 77 tokens; the clause `cut` is the fraction of each prompt beyond them.
"""

from collections.abc import Sequence

from PIL import Image

from lavibridge.evaluation.base import Score, Task
from lavibridge.evaluation.dual_encoder import DualEncoderMetric, LongPrompts


class CLIPScore(DualEncoderMetric):
    """The cosine of picture and prompt under a CLIP."""

    class Config(DualEncoderMetric.Config):
        """The options of the CLIP score."""

        model: str = "openai/clip-vit-base-patch32"
        """A CLIP: a folder, a shipped one (`mini-clip`) or a hub id. Papers report ViT-B/32."""
        long: LongPrompts = "cut"
        """How to score prompts over the limit: `cut` them, as published, or average over `segments`."""

    config: "CLIPScore.Config"

    def score(self, pictures: Sequence[Image.Image], tasks: Sequence[Task]) -> list[Score]:
        """The cosines."""
        found = self.dual_encoder.matches(pictures, [task.prompt for task in tasks], self.config.long)
        return [Score(value=match.cosine, clauses={"cut": match.cut}) for match in found]
