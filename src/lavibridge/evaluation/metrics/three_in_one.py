"""T2I-CompBench's 3-in-1 for complex prompts: the mean of the scores, of three, that apply to the prompt.

    attributes   B-VQA                                              always
    spatial      the spatial score, 0 for an unknown relation       prompts listed as spatial, or as neither
    action       CLIP's cosine with the prompt without adjectives   prompts listed as action, or as neither

Huang et al. 2023, arXiv 2307.06350.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from PIL import Image
from pydantic import Field

from lavibridge.evaluation.base import Score, Task
from lavibridge.evaluation.benchmarks.blip import BLIP_RESIZE, Blip
from lavibridge.evaluation.benchmarks.cards import card_with_networks
from lavibridge.evaluation.benchmarks.detectors.base import find_detector
from lavibridge.evaluation.benchmarks.prompt_metadata import ComplexMetadata, prompt_metadata
from lavibridge.evaluation.dual_encoder import DualEncoder
from lavibridge.evaluation.metrics.b_vqa import b_vqa_score
from lavibridge.evaluation.metrics.base import ImageMetric
from lavibridge.evaluation.metrics.spatial import score_spatial_relation
from lavibridge.evaluation.networks import PretrainedNetwork


class ThreeInOne(ImageMetric):
    """Scores attributes, positions and actions, each if the prompt contains it."""

    class Config(ImageMetric.Config):
        """The options of 3-in-1."""

        model: str = "Salesforce/blip-vqa-capfilt-large"
        """The BLIP of B-VQA: a folder or a hub id."""
        detector: str = "google/owlv2-base-patch16-ensemble"
        """The detector: a folder or a hub id."""
        threshold: float = Field(default=0.2, ge=0, lt=1)
        """Minimum confidence of a detection."""
        clip: str = "openai/clip-vit-base-patch32"
        """The CLIP whose cosine scores actions: a folder or a hub id."""

    config: "ThreeInOne.Config"

    def __init__(self, config: "ThreeInOne.Config") -> None:
        """Find the three models. Raises ModelError if one is missing."""
        super().__init__(config)
        self.blip, self.clip = Blip(config.model), DualEncoder(PretrainedNetwork(config.clip))
        self.detector = find_detector(config.detector)
        self._networks = {
            "model": self.blip.network,
            "detector": self.detector.network,
            "clip": self.clip.network,
        }

    def card(self) -> dict[str, Any]:
        """The options and the models."""
        resize = f"BLIP: {BLIP_RESIZE}; detector and CLIP: their own"
        return {**card_with_networks(super().card(), self._networks), "resize": resize}

    def check(self, tasks: Sequence[Task]) -> None:
        """Check that every prompt is of the complex category."""
        for task in tasks:
            prompt_metadata(task, ComplexMetadata, "compbench")

    def score(self, pictures: Sequence[Image.Image], tasks: Sequence[Task]) -> list[Score]:
        """The mean for each picture; the clauses are its parts."""
        truths = [prompt_metadata(task, ComplexMetadata, "compbench") for task in tasks]
        return [self._score(picture, metadata) for picture, metadata in zip(pictures, truths, strict=True)]

    def free(self) -> None:
        """Free the three models."""
        for network in self._networks.values():
            network.free()

    def _score(self, picture: Image.Image, metadata: ComplexMetadata) -> Score:
        parts = {"attributes": b_vqa_score(self.blip, picture, metadata.phrases)}
        if metadata.is_spatial:
            parts["spatial"] = Score(value=0.0)
            if metadata.relation is not None:
                parts["spatial"] = score_spatial_relation(
                    self.detector, picture, metadata.relation, self.config.threshold
                )
        if metadata.is_action:
            match = self.clip.matches([picture], [metadata.bare], "cut")[0]
            parts["action"] = Score(value=match.cosine)
        detail = {name: dict(part.detail) for name, part in parts.items() if part.detail}
        failed = next((part for part in parts.values() if part.reason), None)
        if failed is not None:
            return replace(failed, detail=detail)
        values = {name: part.value for name, part in parts.items()}
        return Score(value=math.fsum(values.values()) / len(values), clauses=values, detail=detail)
