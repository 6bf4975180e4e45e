"""B-VQA: the product of BLIP's probabilities that the picture shows each noun phrase of the prompt.

    score = product over the phrases of P(yes | picture, "a green bench?")

T2I-CompBench's score for colour, shape and texture. Huang et al. 2023, arXiv 2307.06350; their script rounds
each factor to four decimals, ours does not.
"""

import math
from collections.abc import Sequence
from typing import Any

from PIL import Image

from lavibridge.evaluation.base import Score, Task
from lavibridge.evaluation.benchmarks.blip import BLIP_RESIZE, Blip
from lavibridge.evaluation.benchmarks.cards import card_with_networks
from lavibridge.evaluation.benchmarks.prompt_metadata import PhrasesMetadata, prompt_metadata
from lavibridge.evaluation.metrics.base import ImageMetric

_MAX_PHRASES = 8
"""Maximum phrases per prompt, as in the published script."""


class BVqa(ImageMetric):
    """Scores whether the picture shows every phrase of its prompt."""

    class Config(ImageMetric.Config):
        """The options of B-VQA."""

        model: str = "Salesforce/blip-vqa-capfilt-large"
        """A BLIP for visual question answering: a folder or a hub id."""

    config: "BVqa.Config"

    def __init__(self, config: "BVqa.Config") -> None:
        """Find the model. Raises ModelError if it is missing."""
        super().__init__(config)
        self.blip = Blip(config.model)

    def card(self) -> dict[str, Any]:
        """The options and the model."""
        return {**card_with_networks(super().card(), {"model": self.blip.network}), "resize": BLIP_RESIZE}

    def check(self, tasks: Sequence[Task]) -> None:
        """Check that every prompt has noun phrases."""
        for task in tasks:
            prompt_metadata(task, PhrasesMetadata, "compbench")

    def score(self, pictures: Sequence[Image.Image], tasks: Sequence[Task]) -> list[Score]:
        """The product for each picture; `detail` has the factors."""
        return [
            b_vqa_score(self.blip, picture, prompt_metadata(task, PhrasesMetadata, "compbench").phrases)
            for picture, task in zip(pictures, tasks, strict=True)
        ]

    def free(self) -> None:
        """Free BLIP."""
        self.blip.network.free()


def b_vqa_score(blip: Blip, picture: Image.Image, phrases: Sequence[str]) -> Score:
    """B-VQA of a picture, over at most the first eight phrases."""
    questions = [f"{phrase}?" for phrase in phrases[:_MAX_PHRASES]]
    factors = blip.yes_probabilities(picture, questions)
    return Score(value=math.prod(factors), detail={"yes": dict(zip(questions, factors, strict=True))})
