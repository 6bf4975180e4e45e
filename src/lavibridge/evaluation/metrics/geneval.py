"""GenEval: 1 if a detector and CLIP's colours confirm everything that the prompt requires, else 0.

benchmarks/geneval.py has the rules. The default detector is the published one, from the hub. The total is the
published one too: the mean over tasks of their means.

Ghosh, Hajishirzi and Schmidt 2023, arXiv 2310.11513.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image
from pydantic import Field

from lavibridge.evaluation.base import Score, ScoredTask, Task, unscored_score
from lavibridge.evaluation.benchmarks.boxes import Box
from lavibridge.evaluation.benchmarks.cards import card_with_networks
from lavibridge.evaluation.benchmarks.colors import classify_colors
from lavibridge.evaluation.benchmarks.detectors.base import find_detector
from lavibridge.evaluation.benchmarks.geneval import GenEvalRequirements, check_geneval_requirements
from lavibridge.evaluation.benchmarks.model_metrics import detect_objects
from lavibridge.evaluation.benchmarks.prompt_metadata import prompt_metadata
from lavibridge.evaluation.benchmarks.totals import total_of_any_picture, total_over_categories
from lavibridge.evaluation.dual_encoder import DualEncoder
from lavibridge.evaluation.metrics.base import ImageMetric
from lavibridge.evaluation.networks import PretrainedNetwork
from lavibridge.evaluation.stats import Estimate


class GenEval(ImageMetric):
    """Scores the presence, number, colours and positions of objects."""

    class Config(ImageMetric.Config):
        """The options of GenEval."""

        detector: str = "facebook/mask2former-swin-small-coco-instance"
        """The detector: a folder or a hub id."""
        threshold: float = Field(default=0.3, ge=0, lt=1)
        """Minimum confidence of a detection."""
        counting_threshold: float = Field(default=0.9, ge=0, lt=1)
        """Minimum confidence for counting; use much less with an open-vocabulary detector."""
        clip: str = "openai/clip-vit-large-patch14"
        """The CLIP that classifies colours: a folder or a hub id."""

    config: "GenEval.Config"

    def __init__(self, config: "GenEval.Config") -> None:
        """Find both models. Raises ModelError if one is missing."""
        super().__init__(config)
        self.detector, self.clip = find_detector(config.detector), DualEncoder(PretrainedNetwork(config.clip))
        self._networks = {"detector": self.detector.network, "clip": self.clip.network}

    def card(self) -> dict[str, Any]:
        """The options and the models."""
        return {**card_with_networks(super().card(), self._networks), "resize": "the models' own"}

    def check(self, tasks: Sequence[Task]) -> None:
        """Check that every prompt has requirements."""
        for task in tasks:
            prompt_metadata(task, GenEvalRequirements, "geneval")

    def score(self, pictures: Sequence[Image.Image], tasks: Sequence[Task]) -> list[Score]:
        """1 or 0 for each picture; `detail` has the boxes and the unmet requirements."""
        requirements = [prompt_metadata(task, GenEvalRequirements, "geneval") for task in tasks]
        return [self._score(picture, each) for picture, each in zip(pictures, requirements, strict=True)]

    def totals(self, scored: Sequence[ScoredTask]) -> Mapping[str, Estimate]:
        """The mean of the tasks' means, and the share of prompts with at least one correct picture."""
        return {"mean of tasks": total_over_categories(scored), "any right": total_of_any_picture(scored)}

    def free(self) -> None:
        """Free both models."""
        for network in self._networks.values():
            network.free()

    def _score(self, picture: Image.Image, required: GenEvalRequirements) -> Score:
        threshold = self.config.counting_threshold if required.is_counting else self.config.threshold
        boxes = detect_objects(self.detector, picture, required.names, threshold)
        if isinstance(boxes, str):
            return unscored_score(boxes)

        def classify(boxes: Sequence[Box], name: str) -> list[str]:
            return classify_colors(self.clip, picture, boxes, name)

        clauses, wrong = check_geneval_requirements(required, boxes, classify)
        detail = {"wrong": wrong, "boxes": [box.record() for box in boxes]}
        holds = {name: float(is_so) for name, is_so in clauses.items()}
        return Score(value=float(all(clauses.values())), clauses=holds, detail=detail)
