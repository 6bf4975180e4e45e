"""An attribute-binding probe: labels every word of a caption with the attributes of the thing that it
describes.

    "a small striped red circle and a blue star"
       small, striped, red, circle -> small, striped, red, circle
       blue, star                  -> (none), (none), blue, star

A denoiser that reads frozen features first learns which words occur and from then on paints them onto any
thing: the binding of attributes changes the noise's error little, and every layer in between would have to
change at once. The probe, trained with the denoiser on the tokens that its attention reads, makes the
binding available there (LOG.md, 2026-11-22).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from lavibridge.world.words import PLURALS
from lavibridge.zoo.caption_probe import GROUP_ATTRIBUTES

BINDING_ATTRIBUTES = {name: GROUP_ATTRIBUTES[name] for name in ("size", "texture", "color", "shape")}
"""The attributes that the probe predicts, and their classes; class 0 means not mentioned."""
IGNORE_INDEX = -1
_LABEL_OF_WORD = {
    word: (kind, 1 + place) for kind, words in BINDING_ATTRIBUTES.items() for place, word in enumerate(words)
}
_LABEL_OF_WORD |= {many: _LABEL_OF_WORD[one] for one, many in PLURALS.items()}
_LAST = list(BINDING_ATTRIBUTES).index("shape")


def binding_labels(words: Sequence[str]) -> Int[Tensor, "word kind"]:
    """Return the label of each word; words that describe no thing get `IGNORE_INDEX`.

    In captions of the world, the words of a thing precede its shape's word.
    """
    found = torch.full((len(words), len(BINDING_ATTRIBUTES)), IGNORE_INDEX)
    open_words: list[int] = []
    answer = torch.zeros(len(BINDING_ATTRIBUTES), dtype=torch.long)
    for place, word in enumerate(words):
        if word not in _LABEL_OF_WORD:
            continue
        kind, meant = _LABEL_OF_WORD[word]
        index = list(BINDING_ATTRIBUTES).index(kind)
        answer[index] = meant
        open_words.append(place)
        if index == _LAST:
            found[open_words] = answer
            open_words, answer = [], torch.zeros_like(answer)
    return found


class AttributeBindingProbe(nn.Module):
    """One linear layer for every token; the export does not contain it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.answers = nn.Linear(width, sum(1 + len(answers) for answers in BINDING_ATTRIBUTES.values()))

    def forward(
        self, tokens: Float[Tensor, "batch token width"], true: Int[Tensor, "batch token kind"]
    ) -> Float[Tensor, ""]:
        """Return the mean loss over the labelled tokens, or 0 if there are none."""
        labelled = true[..., 0] != IGNORE_INDEX
        kinds = self.answers(self.norm(tokens[labelled])).split(
            [1 + len(a) for a in BINDING_ATTRIBUTES.values()], dim=-1
        )
        losses = [
            functional.cross_entropy(each, true[labelled][:, index], reduction="sum")
            for index, each in enumerate(kinds)
        ]
        return torch.stack(losses).sum() / (len(losses) * labelled.sum().clamp(min=1))
