"""Detectors with a closed vocabulary (DETR, RT-DETR, YOLOS, ...), and synonyms of their class names.

Benchmarks and models name some objects differently: looks up the name itself, then its synonyms.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from lavibridge.evaluation.benchmarks.boxes import Box
from lavibridge.evaluation.benchmarks.detectors.base import Detector, make_box

_OPEN_VOCABULARY = ("owlvit", "owlv2", "grounding-dino", "mm-grounding-dino", "omdet-turbo")
"""Model types with an open vocabulary."""

_OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "boy": ("person",),
    "girl": ("person",),
    "man": ("person",),
    "woman": ("person",),
    "ship": ("boat",),
    "goldfish": ("fish",),
    "painting": ("picture",),
    "television": ("tv", "tvmonitor"),
    "tv": ("tvmonitor",),
    "couch": ("sofa",),
    "sofa": ("couch",),
    "airplane": ("aeroplane",),
    "motorcycle": ("motorbike",),
    "computer mouse": ("mouse",),
    "computer keyboard": ("keyboard",),
    "tv remote": ("remote",),
}
"""Names of T2I-CompBench's and GenEval's objects in the detectors' class lists."""


class ClosedVocabularyDetector(Detector):
    """A detector of the classes in its config.json."""

    model_class = "AutoModelForObjectDetection"

    @classmethod
    def supports(cls, config: Mapping[str, Any]) -> bool:
        """Object detection models without text input."""
        architecture = (config.get("architectures") or [""])[0]
        return (
            architecture.endswith("ForObjectDetection") and config.get("model_type") not in _OPEN_VOCABULARY
        )

    def unknown(self, names: Sequence[str]) -> list[str]:
        """The names without a class."""
        return unknown_classes(self.network.config, names)

    def _find(self, picture: Image.Image, names: list[str], threshold: float) -> list[Box]:
        network = self.network
        inputs = network.processor(images=[picture], return_tensors="pt").to(network.device)
        found = network.processor.post_process_object_detection(
            network.model(**inputs), threshold=threshold, target_sizes=[(picture.height, picture.width)]
        )[0]
        rows = list(
            zip(found["scores"].tolist(), found["labels"].tolist(), found["boxes"].tolist(), strict=True)
        )
        return [
            make_box(name, score, corners)
            for name, number in class_ids(network.config, names).items()
            for score, label, corners in rows
            if label == number
        ]


def class_ids(config: Mapping[str, Any], names: Sequence[str]) -> dict[str, int]:
    """The class id in config.json for each name that has one."""
    numbers = {_plain(str(label)): int(number) for number, label in config.get("id2label", {}).items()}
    found: dict[str, int] = {}
    for name in names:
        spelled = [_plain(each) for each in (name, *_OTHER_NAMES.get(name, ()))]
        number = next((numbers[each] for each in spelled if each in numbers), None)
        if number is not None:
            found[name] = number
    return found


def unknown_classes(config: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """The names without a class in config.json."""
    known = class_ids(config, names)
    return [name for name in names if name not in known]


def _plain(name: str) -> str:
    return name.lower().replace(" ", "").replace("_", "").replace("-", "")
