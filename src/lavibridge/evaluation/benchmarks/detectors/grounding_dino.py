"""Grounding DINO: detects the objects of one sentence such as "cat. red sofa."

    score of a name = the highest probability of a box over the tokens of the name

Liu et al. 2023, arXiv 2303.05499.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from lavibridge.core.errors import ModelError
from lavibridge.evaluation.benchmarks.boxes import Box
from lavibridge.evaluation.benchmarks.detectors.base import Detector, make_box


class GroundingDinoDetector(Detector):
    """A network that grounds the words of a sentence in the picture."""

    model_class = "AutoModelForZeroShotObjectDetection"

    @classmethod
    def supports(cls, config: Mapping[str, Any]) -> bool:
        """Grounding DINO and MM Grounding DINO."""
        return config.get("model_type") in ("grounding-dino", "mm-grounding-dino")

    def _find(self, picture: Image.Image, names: list[str], threshold: float) -> list[Box]:
        network = self.network
        sentence, spans = grounding_sentence(names)
        words = network.tokenizer(sentence, return_tensors="pt", return_offsets_mapping=True)
        offsets = words.pop("offset_mapping")[0].tolist()
        if len(offsets) > network.model.config.max_text_len:
            raise ModelError(
                f"'{network.source}' has a text limit of {network.model.config.max_text_len} tokens, "
                f"too short for {len(names)} names"
            )
        pixels = network.processor(images=[picture], return_tensors="pt")
        output = network.model(**words.to(network.device), **pixels.to(network.device))
        probabilities = output.logits[0].sigmoid()
        scores = torch.stack(
            [probabilities[:, grounding_tokens(offsets, *span)].amax(-1) for span in spans], dim=-1
        )
        best, labels = scores.max(-1)
        x, y, width, height = output.pred_boxes[0].unbind(-1)
        corners = torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], dim=-1)
        corners = corners * corners.new_tensor([picture.width, picture.height] * 2)
        rows = zip(best.tolist(), labels.tolist(), corners.tolist(), strict=True)
        return [make_box(names[label], score, each) for score, label, each in rows if score > threshold]


def grounding_sentence(names: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """The sentence of all names, and the character span of each."""
    sentence, spans = "", []
    for name in names:
        plain = name.lower().replace(".", " ").strip()
        spans.append((len(sentence), len(sentence) + len(plain)))
        sentence += f"{plain}. "
    return sentence.strip(), spans


def grounding_tokens(offsets: Sequence[Sequence[int]], start: int, end: int) -> list[int]:
    """The tokens that overlap the characters from `start` to `end`."""
    return [i for i, (left, right) in enumerate(offsets) if left < end and right > start]
