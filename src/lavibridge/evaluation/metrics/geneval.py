"""GenEval: 1 where a picture has all that its prompt asks for, by a detector and CLIP's colours, else 0.

The rules are in benchmarks/geneval.py. The default detector is the published one as it is on the hub; the
total is the published one too, the mean of the means of the tasks.

Ghosh, Hajishirzi and Schmidt 2023, arXiv 2310.11513.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image
from pydantic import Field

from lavibridge.evaluation.base import Score, ScoredTask, Task, unscored
from lavibridge.evaluation.benchmarks.boxes import Box
from lavibridge.evaluation.benchmarks.cards import with_networks
from lavibridge.evaluation.benchmarks.colors import classify_colors
from lavibridge.evaluation.benchmarks.detectors.base import find_detector
from lavibridge.evaluation.benchmarks.geneval import Requirements, check_requirements
from lavibridge.evaluation.benchmarks.model_metrics import detect_objects
from lavibridge.evaluation.benchmarks.prompt_metadata import metadata_of
from lavibridge.evaluation.benchmarks.totals import any_picture, mean_of_categories
from lavibridge.evaluation.dual_encoder import DualEncoder
from lavibridge.evaluation.metrics.base import ImageMetric
from lavibridge.evaluation.networks import PretrainedNetwork
from lavibridge.evaluation.stats import Estimate


class GenEval(ImageMetric):
    """Judges whether things are there, how many, in which colours and positions."""

    class Config(ImageMetric.Config):
        """The options of GenEval."""

        detector: str = "facebook/mask2former-swin-small-coco-instance"
        """What finds things: a folder or a hub id."""
        threshold: float = Field(default=0.3, ge=0, lt=1)
        """How sure the detector must be."""
        counting_threshold: float = Field(default=0.9, ge=0, lt=1)
        """The same where things are counted; much less for detectors that are asked in words."""
        clip: str = "openai/clip-vit-large-patch14"
        """The CLIP that tells colours: a folder or a hub id."""

    config: "GenEval.Config"

    def __init__(self, config: "GenEval.Config") -> None:
        """Find both models; ModelError where one is absent."""
        super().__init__(config)
        self.detector, self.clip = find_detector(config.detector), DualEncoder(PretrainedNetwork(config.clip))
        self._networks = {"detector": self.detector.network, "clip": self.clip.network}

    def card(self) -> dict[str, Any]:
        """Its options and its models."""
        return {**with_networks(super().card(), self._networks), "resize": "the models' own"}

    def check(self, tasks: Sequence[Task]) -> None:
        """Every prompt must say what it asks for."""
        for task in tasks:
            metadata_of(task, Requirements, "geneval")

    def score(self, pictures: Sequence[Image.Image], tasks: Sequence[Task]) -> list[Score]:
        """1 or 0 for each picture; `detail` has the boxes and what is wrong."""
        asked = [metadata_of(task, Requirements, "geneval") for task in tasks]
        return [self._score(picture, each) for picture, each in zip(pictures, asked, strict=True)]

    def totals(self, scored: Sequence[ScoredTask]) -> Mapping[str, Estimate]:
        """The mean of the tasks' means, and the share of prompts with a right picture among theirs."""
        return {"mean of tasks": mean_of_categories(scored), "any right": any_picture(scored)}

    def free(self) -> None:
        """Let go of both models."""
        for network in self._networks.values():
            network.free()

    def _score(self, picture: Image.Image, asked: Requirements) -> Score:
        threshold = self.config.counting_threshold if asked.is_counting else self.config.threshold
        boxes = detect_objects(self.detector, picture, asked.names, threshold)
        if isinstance(boxes, str):
            return unscored(boxes)

        def classify(found: Sequence[Box], name: str) -> list[str]:
            return classify_colors(self.clip, picture, found, name)

        clauses, wrong = check_requirements(asked, boxes, classify)
        detail = {"wrong": wrong, "boxes": [box.record() for box in boxes]}
        holds = {name: float(is_so) for name, is_so in clauses.items()}
        return Score(value=float(all(clauses.values())), clauses=holds, detail=detail)
