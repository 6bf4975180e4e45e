"""SigLIP score: how well a picture matches its prompt under a model trained to classify pairs.

    cosine     cos(picture, prompt)
    logit      exp(scale) cos + bias              with the learned scale and bias
    sigmoid    1 / (1 + exp(-logit))              near 0 for hard prompts; the logit's mean is more stable

Pads texts to the limit, as in training. Zhai et al. 2023 (arXiv 2303.15343); SigLIP 2 reads lower
case: Tschannen et al. 2025 (arXiv 2502.14786).
"""

import math
from collections.abc import Sequence
from typing import Literal

from PIL import Image

from lavibridge.evaluation.base import Score, Task
from lavibridge.evaluation.dual_encoder import DualEncoder, DualEncoderMetric, LongPrompts


class SigLIPScore(DualEncoderMetric):
    """The match of picture and prompt under SigLIP."""

    class Config(DualEncoderMetric.Config):
        """The options of the SigLIP score."""

        model: str = "google/siglip-so400m-patch14-384"
        """A SigLIP or SigLIP 2: a folder or a hub id."""
        mode: Literal["cosine", "logit", "sigmoid"] = "cosine"
        """The number to report."""
        lower: bool = False
        """Whether to lower-case prompts first, as SigLIP 2 expects."""
        long: LongPrompts = "cut"
        """How to score prompts over the limit: `cut` them, or average over `segments`."""

    config: "SigLIPScore.Config"

    def __init__(self, config: "SigLIPScore.Config") -> None:
        """Find the model. Raises ModelError if there is none."""
        super().__init__(config)
        self.dual_encoder = DualEncoder(self.network, to_limit=True, lower=config.lower)

    def score(self, pictures: Sequence[Image.Image], tasks: Sequence[Task]) -> list[Score]:
        """The cosines, logits or probabilities."""
        found = self.dual_encoder.matches(pictures, [task.prompt for task in tasks], self.config.long)
        return [Score(value=self._value(match.cosine), clauses={"cut": match.cut}) for match in found]

    def _value(self, cosine: float) -> float:
        if self.config.mode == "cosine":
            return cosine
        model = self.network.model
        logit = math.exp(float(model.logit_scale)) * cosine + float(model.logit_bias)
        return logit if self.config.mode == "logit" else 1 / (1 + math.exp(-logit))
