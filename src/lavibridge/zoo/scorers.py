"""The world's learned scorers: mini-clip and mini-resnet score pictures, as larger models do elsewhere.

    clip     cosine of the picture's and the caption's embedding            (CLIP score without its factor)
    resnet   mean log-probability of what the prompt names: shapes, colors, textures, number of things

Unlike the exact checker, neither sees which color belongs to which shape. `benchmarks/judges.py` measures how
far each agrees with the checker, and docs/judges.md has the results.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch.nn import functional
from transformers import CLIPImageProcessorPil, ResNetForImageClassification

from lavibridge.core.paths import models_folder
from lavibridge.evaluation.dual_encoder import DualEncoder
from lavibridge.evaluation.networks import PretrainedNetwork
from lavibridge.world.captions import CaptionedScene
from lavibridge.world.drawing import draw_scene
from lavibridge.world.scene import SceneSpec
from lavibridge.zoo.clip import clip_hard_negative

_BATCH = 100
Scorer = Callable[[Sequence[Image.Image], Sequence[CaptionedScene]], list[float]]


def clip_scorer() -> Scorer:
    """Return a scorer that uses mini-clip."""
    pairing = DualEncoder(PretrainedNetwork("mini-clip"))

    def score(pictures: Sequence[Image.Image], pairs: Sequence[CaptionedScene]) -> list[float]:
        found: list[float] = []
        for start in range(0, len(pairs), _BATCH):
            captions = [pair.caption for pair in pairs[start : start + _BATCH]]
            matches = pairing.matches(pictures[start : start + _BATCH], captions, "cut")
            found += [match.cosine for match in matches]
        return found

    return score


def resnet_scorer() -> Scorer:
    """Return a scorer that uses mini-resnet."""
    folder = models_folder() / "mini-resnet"
    model = ResNetForImageClassification.from_pretrained(folder, dtype=torch.float32).eval()
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    place = {label: index for index, label in model.config.id2label.items()}

    def score(pictures: Sequence[Image.Image], pairs: Sequence[CaptionedScene]) -> list[float]:
        found: list[float] = []
        for start in range(0, len(pairs), _BATCH):
            pixels = processor(images=list(pictures[start : start + _BATCH]), return_tensors="pt")
            with torch.no_grad():
                certain = functional.logsigmoid(model(**pixels).logits)
            for row, pair in zip(certain, pairs[start : start + _BATCH], strict=True):
                found.append(float(row[[place[label] for label in labels_of_prompt(pair.spec)]].mean()))
        return found

    return score


def labels_of_prompt(spec: SceneSpec) -> list[str]:
    """Return the labels that a prompt names."""
    values = [value for group in spec.groups for value in (group.shape, group.color, group.texture)]
    count = f"{sum(group.count for group in spec.groups)} things"
    return [*dict.fromkeys(value for value in values if value is not None), count]


def hard_negative_accuracy(score: Scorer, pairs: Sequence[CaptionedScene]) -> list[float]:
    """Return, for each true picture, 1 if its caption scores higher than its hard negative's (0.5 for a tie),
    else 0."""
    rng = np.random.default_rng(0)
    both = [(pair, other) for pair in pairs if (other := clip_hard_negative(rng, pair)) is not None]
    pictures = [Image.fromarray(draw_scene(pair.scene)) for pair, _ in both]
    true = score(pictures, [pair for pair, _ in both])
    false = score(pictures, [other for _, other in both])
    return [float(a > b) + 0.5 * float(a == b) for a, b in zip(true, false, strict=True)]
