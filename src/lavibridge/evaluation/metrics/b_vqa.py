"""B-VQA: how sure BLIP is that the picture shows each noun phrase of the prompt; the product of these.

    score = product over the phrases of P(yes | picture, "a green bench?")

T2I-CompBench's score of colour, shape and texture. Huang et al. 2023, arXiv 2307.06350, whose script rounds
each factor to four decimals; here they are exact.
"""

import math
from collections.abc import Sequence
from typing import Any

from PIL import Image

from lavibridge.evaluation.base import Score, Task
from lavibridge.evaluation.benchmarks.blip import RESIZE, Blip
from lavibridge.evaluation.benchmarks.cards import with_networks
from lavibridge.evaluation.benchmarks.prompt_metadata import Phrases, metadata_of
from lavibridge.evaluation.metrics.base import ImageMetric

MAX_PHRASES = 8
"""Phrases asked about; the published script's number."""


class BVqa(ImageMetric):
    """Judges whether all that a prompt names is in the picture as it is named."""

    class Config(ImageMetric.Config):
        """The options of B-VQA."""

        model: str = "Salesforce/blip-vqa-capfilt-large"
        """A BLIP that answers questions: a folder or a hub id."""

    config: "BVqa.Config"

    def __init__(self, config: "BVqa.Config") -> None:
        """Find the model; ModelError where it is absent."""
        super().__init__(config)
        self.blip = Blip(config.model)

    def card(self) -> dict[str, Any]:
        """Its options and its model."""
        return {**with_networks(super().card(), {"model": self.blip.network}), "resize": RESIZE}

    def check(self, tasks: Sequence[Task]) -> None:
        """Every prompt must name something."""
        for task in tasks:
            metadata_of(task, Phrases, "compbench")

    def score(self, pictures: Sequence[Image.Image], tasks: Sequence[Task]) -> list[Score]:
        """The product for each picture; `detail` has its factors."""
        return [
            phrases_score(self.blip, picture, metadata_of(task, Phrases, "compbench").phrases)
            for picture, task in zip(pictures, tasks, strict=True)
        ]

    def free(self) -> None:
        """Let go of BLIP."""
        self.blip.network.free()


def phrases_score(blip: Blip, picture: Image.Image, phrases: Sequence[str]) -> Score:
    """B-VQA of a picture; of more than eight phrases the first eight."""
    asked = [f"{phrase}?" for phrase in phrases[:MAX_PHRASES]]
    factors = blip.yes_probabilities(picture, asked)
    return Score(value=math.prod(factors), detail={"yes": dict(zip(asked, factors, strict=True))})
