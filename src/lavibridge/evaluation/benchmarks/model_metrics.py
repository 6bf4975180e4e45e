"""Bases of metrics with one model: an image-text model or a detector."""

from abc import ABC
from collections.abc import Sequence
from typing import Any, Literal

from PIL import Image
from pydantic import Field

from lavibridge.evaluation.benchmarks.boxes import Box
from lavibridge.evaluation.benchmarks.cards import card_with_networks
from lavibridge.evaluation.benchmarks.detectors.base import Detector, find_detector
from lavibridge.evaluation.benchmarks.image_text_model import ImageTextModel
from lavibridge.evaluation.metrics.base import ImageMetric


class VisualQuestionMetric(ImageMetric, ABC):
    """Base of metrics that ask an image-text model questions."""

    class Config(ImageMetric.Config):
        """The options of such a metric."""

        model: str = "Qwen/Qwen3-VL-8B-Instruct"
        """The image-text model: a folder or a hub id."""
        dtype: Literal["bfloat16", "float32"] = "bfloat16"
        """The precision of its weights."""

    config: "VisualQuestionMetric.Config"

    def __init__(self, config: "VisualQuestionMetric.Config") -> None:
        """Find the model. Raises ModelError if it is missing."""
        super().__init__(config)
        self.image_text_model = ImageTextModel(config.model, config.dtype)

    def card(self) -> dict[str, Any]:
        """The options and the model."""
        return {
            **card_with_networks(super().card(), {"model": self.image_text_model.network}),
            "resize": "the model's own",
        }

    def free(self) -> None:
        """Free the model."""
        self.image_text_model.network.free()


class DetectorMetric(ImageMetric, ABC):
    """Base of metrics that use an object detector."""

    class Config(ImageMetric.Config):
        """The options of such a metric."""

        detector: str = "google/owlv2-base-patch16-ensemble"
        """The detector: a folder or a hub id."""
        threshold: float = Field(default=0.2, ge=0, lt=1)
        """Minimum confidence of a detection. Open-vocabulary detectors have low confidences; UniDet, which
        has a closed vocabulary, was published with 0.5."""

    config: "DetectorMetric.Config"

    def __init__(self, config: "DetectorMetric.Config") -> None:
        """Find the detector. Raises ModelError if it is missing or of an unknown kind."""
        super().__init__(config)
        self.detector = find_detector(config.detector)

    def card(self) -> dict[str, Any]:
        """The options and the detector."""
        return {
            **card_with_networks(super().card(), {"detector": self.detector.network}),
            "resize": "the detector's",
        }

    def free(self) -> None:
        """Free the detector."""
        self.detector.network.free()


def detect_objects(
    detector: Detector, picture: Image.Image, names: Sequence[str], threshold: float
) -> list[Box] | str:
    """The boxes of all objects of these names in a picture, or the reason why the detector cannot find
    them."""
    strange = detector.unknown(names)
    if strange:
        return f"the detector does not know '{strange[0]}'"
    return detector.detect([picture], [names], threshold)[0]
