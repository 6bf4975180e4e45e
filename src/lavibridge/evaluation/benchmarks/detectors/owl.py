"""OWL-ViT and OWLv2: open-vocabulary detectors with one query per object, "a photo of a cat".

Minderer et al. 2022, arXiv 2205.06230; 2023, arXiv 2306.09683.
"""

from collections.abc import Mapping
from typing import Any

from PIL import Image

from lavibridge.evaluation.benchmarks.boxes import Box
from lavibridge.evaluation.benchmarks.detectors.base import Detector, make_box


class OwlDetector(Detector):
    """A network that compares image patches with the text query of each object."""

    model_class = "AutoModelForZeroShotObjectDetection"

    @classmethod
    def supports(cls, config: Mapping[str, Any]) -> bool:
        """OWL-ViT and OWLv2."""
        return config.get("model_type") in ("owlvit", "owlv2")

    def _find(self, picture: Image.Image, names: list[str], threshold: float) -> list[Box]:
        network = self.network
        words = network.tokenizer(
            [f"a photo of a {name}" for name in names],
            padding="max_length",
            truncation=True,
            max_length=network.model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).to(network.device)
        output = network.model(
            input_ids=words["input_ids"],
            attention_mask=words["attention_mask"],
            pixel_values=network.pixels([picture]),
        )
        found = network.processor.post_process_object_detection(
            output, threshold=threshold, target_sizes=[(picture.height, picture.width)]
        )[0]
        rows = zip(found["scores"].tolist(), found["labels"].tolist(), found["boxes"].tolist(), strict=True)
        return [make_box(names[label], score, corners) for score, label, corners in rows]
