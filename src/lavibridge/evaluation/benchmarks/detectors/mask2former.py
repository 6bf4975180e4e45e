"""Mask2Former: detects objects with their pixel masks; GenEval's published detector is of this kind.

An object's box is the smallest one around its mask; its score is the class score times the mask score (Cheng
et al. 2022, arXiv 2112.01527).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool
from PIL import Image

from lavibridge.evaluation.benchmarks.boxes import Box
from lavibridge.evaluation.benchmarks.detectors.base import Detector
from lavibridge.evaluation.benchmarks.detectors.closed_vocabulary import class_ids, unknown_classes


class Mask2FormerDetector(Detector):
    """A network that segments instances of the classes in its config.json."""

    model_class = "Mask2FormerForUniversalSegmentation"

    @classmethod
    def supports(cls, config: Mapping[str, Any]) -> bool:
        """Mask2Former."""
        return config.get("model_type") == "mask2former"

    def unknown(self, names: Sequence[str]) -> list[str]:
        """The names without a class."""
        return unknown_classes(self.network.config, names)

    def _find(self, picture: Image.Image, names: list[str], threshold: float) -> list[Box]:
        network = self.network
        inputs = network.processor(images=[picture], return_tensors="pt").to(network.device)
        seen = network.model(**inputs)
        # Post-processing creates its maps on the CPU.
        seen.class_queries_logits = seen.class_queries_logits.cpu()
        seen.masks_queries_logits = seen.masks_queries_logits.cpu()
        found = network.processor.post_process_instance_segmentation(
            seen,
            threshold=threshold,
            target_sizes=[(picture.height, picture.width)],
            return_binary_maps=True,
        )[0]
        numbers = class_ids(network.config, names)
        boxes: list[Box] = []
        for i, segment in enumerate(found["segments_info"]):
            called = [name for name, number in numbers.items() if number == segment["label_id"]]
            if called and segment["score"] > threshold:
                mask = found["segmentation"][i].numpy() > 0
                boxes += [mask_bounding_box(mask, name, segment["score"]) for name in called]
        return boxes


def mask_bounding_box(mask: Bool[np.ndarray, "height width"], name: str, score: float) -> Box:
    """The smallest box around the pixels of a non-empty mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return Box(
        name=name,
        score=score,
        left=float(columns[0]),
        top=float(rows[0]),
        right=float(columns[-1] + 1),
        bottom=float(rows[-1] + 1),
        mask=mask,
    )
