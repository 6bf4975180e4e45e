"""What a caption tells, as labels: beside a denoiser, a text tower that learns along is to keep all of it.

    loss = mean over questions of cross-entropy(W_q mean over tokens of the tower's output, answer)

The denoiser's gradient asks for what it uses already. Left to it alone, words it did not use yet faded in the
tower (of the feature that a colour changes, a direction changed a sixth), so it never learnt to use them.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from lavibridge.world.scene import COLORS, PLACES, RELATIONS, SHAPES, TEXTURES, Spec

GROUP_ATTRIBUTES: dict[str, tuple[object, ...]] = {
    "shape": SHAPES,
    "color": tuple(COLORS),
    "texture": TEXTURES,
    "size": ("small", "large"),
    "place": PLACES,
    "count": (1, 2, 3, 4),
}
GROUPS = 2
"""Of longer captions the first things are asked for."""
CLASS_COUNTS = [*(len(values) for values in GROUP_ATTRIBUTES.values())] * GROUPS + [len(RELATIONS)]
"""Possible answers to each question, besides 0: nothing is said."""


class CaptionProbe(nn.Module):
    """One linear layer for every question; it is not part of the exported model."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(width, 1 + answers) for answers in CLASS_COUNTS)

    def forward(
        self, text: Float[Tensor, "batch token width"], caption_labels: Int[Tensor, "batch question"]
    ) -> Float[Tensor, ""]:
        """The loss of what a tower made of captions."""
        heard = text.mean(dim=1)
        losses = [
            functional.cross_entropy(head(heard), caption_labels[:, index])
            for index, head in enumerate(self.heads)
        ]
        return torch.stack(losses).mean()


def caption_labels(spec: Spec) -> list[int]:
    """The answers that a caption of the spec gives."""
    answers = []
    for index in range(GROUPS):
        group = spec.groups[index] if index < len(spec.groups) else None
        for name, values in GROUP_ATTRIBUTES.items():
            value = None if group is None else getattr(group, name)
            answers.append(0 if value is None else 1 + values.index(value))
    relation = None if spec.relation is None else spec.relation.name
    return [*answers, 0 if relation is None else 1 + RELATIONS.index(relation)]
