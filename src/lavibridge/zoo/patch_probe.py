"""A patch probe: during pretraining, a transformer's inner tokens predict the content of each patch.

    loss = cross-entropy(shape, colour, texture) + |centre and size of the thing - prediction|

The squared error of the noise says little about shapes: a circle and a square of the same size differ in a
few corner pixels. A label states directly what a patch should become part of. After representation alignment
(Yu et al. 2024, arXiv 2410.06940), which trains inner tokens to predict another network's features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from lavibridge.world.captions import CaptionedScene
from lavibridge.world.drawing import draw_placed_mask
from lavibridge.world.scene import CANVAS
from lavibridge.zoo.caption_probe import GROUP_ATTRIBUTES

PATCHES_PER_SIDE = 8
"""Patches per side of the picture."""
_ATTRIBUTES = {name: GROUP_ATTRIBUTES[name] for name in ("shape", "color", "texture")}
"""The attributes that the probe predicts for a patch, and their classes; class 0 means ground."""
_OUTPUTS = [*(1 + len(answers) for answers in _ATTRIBUTES.values()), 3]
"""Output sizes of the probe: one logit per class, and the box."""
MIN_PATCH_PIXELS = 4
"""Minimum number of a patch's pixels that a thing covers to count as lying there."""
_GROUND_WEIGHT = 0.15
"""Loss weight of a ground patch; most pictures are mostly ground."""


@dataclass(frozen=True, kw_only=True)
class PatchLabels:
    """The labels of pictures."""

    kinds: Int[Tensor, "picture patch 3"]
    """Shape, colour and texture of the thing in the patch, from 1; 0 on the ground."""
    boxes: Float[Tensor, "picture patch 3"]
    """The thing's centre relative to the patch's (x, y), and its side, in units of 16 pixels; 0 on the
    ground."""

    def __getitem__(self, rows: Int[Tensor, " row"]) -> "PatchLabels":
        return PatchLabels(kinds=self.kinds[rows], boxes=self.boxes[rows])


def patch_labels(pairs: Sequence[CaptionedScene]) -> PatchLabels:
    """Return the labels of the pairs' scenes; a patch belongs to the thing drawn last among those that cover
    it."""
    kinds = np.zeros((len(pairs), PATCHES_PER_SIDE**2, 3), dtype=np.int64)
    boxes = np.zeros((len(pairs), PATCHES_PER_SIDE**2, 3), dtype=np.float32)
    patch = CANVAS // PATCHES_PER_SIDE
    centers = np.stack(np.meshgrid(*(np.arange(PATCHES_PER_SIDE) * patch + patch / 2,) * 2), axis=-1).reshape(
        -1, 2
    )
    for row, pair in enumerate(pairs):
        for thing in pair.scene.things:
            here = (
                draw_placed_mask(thing)
                .reshape(PATCHES_PER_SIDE, patch, PATCHES_PER_SIDE, patch)
                .sum(axis=(1, 3))
                .ravel()
                >= MIN_PATCH_PIXELS
            )
            kinds[row, here] = [1 + kind.index(getattr(thing, name)) for name, kind in _ATTRIBUTES.items()]
            boxes[row, here, :2] = (np.asarray(thing.center) - centers[here]) / 16
            boxes[row, here, 2] = thing.side / 16
    return PatchLabels(kinds=torch.from_numpy(kinds), boxes=torch.from_numpy(boxes))


class PatchProbe(nn.Module):
    """One linear layer for every patch; the export does not contain it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.answers = nn.Linear(width, sum(_OUTPUTS))

    def forward(
        self, tokens: Float[Tensor, "batch patch width"], true: PatchLabels
    ) -> Float[Tensor, " batch"]:
        """Return the loss of each picture's tokens."""
        *kinds, boxes = self.answers(self.norm(tokens)).split(_OUTPUTS, dim=-1)
        covered = (true.kinds[..., 0] > 0).float()
        weights = _GROUND_WEIGHT + (1 - _GROUND_WEIGHT) * covered
        attribute_loss = torch.stack(
            [
                functional.cross_entropy(each.transpose(1, 2), true.kinds[..., index], reduction="none")
                for index, each in enumerate(kinds)
            ]
        ).sum(dim=0)
        box_loss = (boxes - true.boxes).abs().sum(dim=-1) * covered
        things = covered.sum(dim=1).clamp(min=1)
        return (attribute_loss * weights).sum(dim=1) / weights.sum(dim=1) + box_loss.sum(dim=1) / things
