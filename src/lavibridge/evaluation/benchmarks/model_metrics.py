"""Metrics that ask one model: an image-text model that answers, or a detector that finds."""

from abc import ABC
from collections.abc import Sequence
from typing import Any, Literal

from PIL import Image
from pydantic import Field

from lavibridge.evaluation.benchmarks.boxes import Box
from lavibridge.evaluation.benchmarks.cards import with_networks
from lavibridge.evaluation.benchmarks.detectors.base import Detector, find_detector
from lavibridge.evaluation.benchmarks.image_text_model import ImageTextModel
from lavibridge.evaluation.metrics.base import ImageMetric


class VisualQuestionMetric(ImageMetric, ABC):
    """A metric that asks an image-text model."""

    class Config(ImageMetric.Config):
        """The options of such a metric."""

        model: str = "Qwen/Qwen3-VL-8B-Instruct"
        """The image-text model that answers: a folder or a hub id."""
        dtype: Literal["bfloat16", "float32"] = "bfloat16"
        """The precision that it answers in."""

    config: "VisualQuestionMetric.Config"

    def __init__(self, config: "VisualQuestionMetric.Config") -> None:
        """Find the model; ModelError where it is absent."""
        super().__init__(config)
        self.image_text_model = ImageTextModel(config.model, config.dtype)

    def card(self) -> dict[str, Any]:
        """Its options and its model."""
        return {
            **with_networks(super().card(), {"model": self.image_text_model.network}),
            "resize": "the model's own",
        }

    def free(self) -> None:
        """Let go of the model."""
        self.image_text_model.network.free()


class DetectorMetric(ImageMetric, ABC):
    """A metric that asks a detector of things."""

    class Config(ImageMetric.Config):
        """The options of such a metric."""

        detector: str = "google/owlv2-base-patch16-ensemble"
        """What finds things: a folder or a hub id."""
        threshold: float = Field(default=0.2, ge=0, lt=1)
        """How sure the detector must be. Detectors that are asked in words are seldom sure; UniDet, which is
        not of them, was published with 0.5."""

    config: "DetectorMetric.Config"

    def __init__(self, config: "DetectorMetric.Config") -> None:
        """Find the detector; ModelError where it is absent, or of no kind that is known."""
        super().__init__(config)
        self.detector = find_detector(config.detector)

    def card(self) -> dict[str, Any]:
        """Its options and its detector."""
        return {
            **with_networks(super().card(), {"detector": self.detector.network}),
            "resize": "the detector's",
        }

    def free(self) -> None:
        """Let go of the detector."""
        self.detector.network.free()


def detect_objects(
    detector: Detector, picture: Image.Image, names: Sequence[str], threshold: float
) -> list[Box] | str:
    """The boxes of all things of these names in a picture; or why this detector cannot tell."""
    strange = detector.unknown(names)
    if strange:
        return f"the detector knows no '{strange[0]}'"
    return detector.detect([picture], [names], threshold)[0]
