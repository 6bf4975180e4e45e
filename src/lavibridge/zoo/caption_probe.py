"""A caption probe: trained with a denoiser, it keeps the content of captions in a trained text tower.

    loss = mean over questions of cross-entropy(W_q mean over tokens of the tower's output, label)

The denoiser's gradient rewards only words that the denoiser already uses. With that gradient alone, other
words faded in the tower (a direction changed its features a sixth as much as a colour did), so the denoiser
never learned to use them.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from lavibridge.world.scene import COLORS, PLACES, RELATIONS, SHAPES, TEXTURES, SceneSpec

GROUP_ATTRIBUTES: dict[str, tuple[object, ...]] = {
    "shape": SHAPES,
    "color": tuple(COLORS),
    "texture": TEXTURES,
    "size": ("small", "large"),
    "place": PLACES,
    "count": (1, 2, 3, 4),
}
_GROUPS = 2
"""The number of things whose attributes the probe predicts: the first ones of longer captions."""
_CLASS_COUNTS = [*(len(values) for values in GROUP_ATTRIBUTES.values())] * _GROUPS + [len(RELATIONS)]
"""The number of classes of each question, besides class 0: not mentioned."""


class CaptionProbe(nn.Module):
    """One linear layer for every question; the export does not contain it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(width, 1 + answers) for answers in _CLASS_COUNTS)

    def forward(
        self, text: Float[Tensor, "batch token width"], caption_labels: Int[Tensor, "batch question"]
    ) -> Float[Tensor, ""]:
        """Return the loss on a tower's output for captions."""
        heard = text.mean(dim=1)
        losses = [
            functional.cross_entropy(head(heard), caption_labels[:, index])
            for index, head in enumerate(self.heads)
        ]
        return torch.stack(losses).mean()


def caption_labels(spec: SceneSpec) -> list[int]:
    """Return the labels of a caption of the spec."""
    answers = []
    for index in range(_GROUPS):
        group = spec.groups[index] if index < len(spec.groups) else None
        for name, values in GROUP_ATTRIBUTES.items():
            value = None if group is None else getattr(group, name)
            answers.append(0 if value is None else 1 + values.index(value))
    relation = None if spec.relation is None else spec.relation.name
    return [*answers, 0 if relation is None else 1 + RELATIONS.index(relation)]
