"""What a picture shows, patch by patch, as labels: beside the denoising, a transformer's inner tokens answer.

    loss = cross-entropy(shape, colour, texture) + |centre and size of the thing - answered|

The squared error of the noise says little of shapes: a circle and a square of the same size differ in a few
corner pixels. A label says at once what a patch is to become a part of. After representation alignment (Yu
et al. 2024, arXiv 2410.06940), which asks inner tokens for another network's features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from lavibridge.world.captions import CaptionedScene
from lavibridge.world.drawing import placed_mask
from lavibridge.world.scene import CANVAS
from lavibridge.zoo.caption_probe import GROUP_ATTRIBUTES

SIDE = 8
"""Patches to a side of the picture."""
ATTRIBUTES = {name: GROUP_ATTRIBUTES[name] for name in ("shape", "color", "texture")}
"""What is asked of a patch, and the possible answers besides 0: nothing lies here."""
OUTPUTS = [*(1 + len(answers) for answers in ATTRIBUTES.values()), 3]
"""Numbers that a token answers with: one for each answer, and the box."""
MIN_COVERED_PIXELS = 4
"""Pixels of a patch from which a thing counts as lying there."""
GROUND_WEIGHT = 0.15
"""What an empty patch counts, of which most pictures are made."""


@dataclass(frozen=True, kw_only=True)
class PatchLabels:
    """The labels of pictures."""

    kinds: Int[Tensor, "picture patch 3"]
    """Shape, colour and texture of the thing that lies there, from 1; 0 on the ground."""
    boxes: Float[Tensor, "picture patch 3"]
    """Its centre from the patch's (x, y) and its side, in pixels over 16; 0 on the ground."""

    def __getitem__(self, rows: Int[Tensor, " row"]) -> "PatchLabels":
        return PatchLabels(kinds=self.kinds[rows], boxes=self.boxes[rows])


def patch_labels(pairs: Sequence[CaptionedScene]) -> PatchLabels:
    """The labels of the pairs' scenes; a patch belongs to the last drawn of the things that lie there."""
    kinds = np.zeros((len(pairs), SIDE**2, 3), dtype=np.int64)
    boxes = np.zeros((len(pairs), SIDE**2, 3), dtype=np.float32)
    patch = CANVAS // SIDE
    centers = np.stack(np.meshgrid(*(np.arange(SIDE) * patch + patch / 2,) * 2), axis=-1).reshape(-1, 2)
    for row, pair in enumerate(pairs):
        for thing in pair.scene.things:
            here = (
                placed_mask(thing).reshape(SIDE, patch, SIDE, patch).sum(axis=(1, 3)).ravel()
                >= MIN_COVERED_PIXELS
            )
            kinds[row, here] = [1 + kind.index(getattr(thing, name)) for name, kind in ATTRIBUTES.items()]
            boxes[row, here, :2] = (np.asarray(thing.center) - centers[here]) / 16
            boxes[row, here, 2] = thing.side / 16
    return PatchLabels(kinds=torch.from_numpy(kinds), boxes=torch.from_numpy(boxes))


class PatchProbe(nn.Module):
    """One linear layer for every patch; it is not part of the exported model."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.answers = nn.Linear(width, sum(OUTPUTS))

    def forward(
        self, tokens: Float[Tensor, "batch patch width"], true: PatchLabels
    ) -> Float[Tensor, " batch"]:
        """The loss of each picture's tokens."""
        *kinds, boxes = self.answers(self.norm(tokens)).split(OUTPUTS, dim=-1)
        covered = (true.kinds[..., 0] > 0).float()
        weights = GROUND_WEIGHT + (1 - GROUND_WEIGHT) * covered
        told = torch.stack(
            [
                functional.cross_entropy(each.transpose(1, 2), true.kinds[..., index], reduction="none")
                for index, each in enumerate(kinds)
            ]
        ).sum(dim=0)
        beside = (boxes - true.boxes).abs().sum(dim=-1) * covered
        things = covered.sum(dim=1).clamp(min=1)
        return (told * weights).sum(dim=1) / weights.sum(dim=1) + beside.sum(dim=1) / things
