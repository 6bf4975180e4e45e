"""What a word of a caption belongs to, as labels: beside a denoiser, the tokens that it reads answer.

    "a small striped red circle and a blue star"
       small, striped, red, circle -> small, striped, red, circle
       blue, star                  -> (nothing said), (nothing said), blue, star

A denoiser that reads frozen features learns first which words there are and from then on paints them onto any
thing: what belongs to what changes little of the noise's error, and every layer between would have to change
at once. Asked of the tokens that its attention reads, it lies there ready (LOG.md, 2026-11-22).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from lavibridge.world.words import PLURALS
from lavibridge.zoo.caption_probe import GROUP_ATTRIBUTES

ATTRIBUTES = {name: GROUP_ATTRIBUTES[name] for name in ("size", "texture", "color", "shape")}
"""What is asked of a word, and the possible answers besides 0: nothing is said."""
IGNORE_INDEX = -1
_LABEL_OF_WORD = {
    word: (kind, 1 + place) for kind, words in ATTRIBUTES.items() for place, word in enumerate(words)
}
_LABEL_OF_WORD |= {many: _LABEL_OF_WORD[one] for one, many in PLURALS.items()}
_LAST = list(ATTRIBUTES).index("shape")


def binding_labels(words: Sequence[str]) -> Int[Tensor, "word kind"]:
    """The answers of each word; words that say nothing of a thing are not asked.

    In captions of the world a thing's words stand before its shape's word, in sentences of their own or after
    one another.
    """
    found = torch.full((len(words), len(ATTRIBUTES)), IGNORE_INDEX)
    open_words: list[int] = []
    answer = torch.zeros(len(ATTRIBUTES), dtype=torch.long)
    for place, word in enumerate(words):
        if word not in _LABEL_OF_WORD:
            continue
        kind, meant = _LABEL_OF_WORD[word]
        index = list(ATTRIBUTES).index(kind)
        answer[index] = meant
        open_words.append(place)
        if index == _LAST:
            found[open_words] = answer
            open_words, answer = [], torch.zeros_like(answer)
    return found


class AttributeBindingProbe(nn.Module):
    """One linear layer for every token; it is not part of the exported model."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.answers = nn.Linear(width, sum(1 + len(answers) for answers in ATTRIBUTES.values()))

    def forward(
        self, tokens: Float[Tensor, "batch token width"], true: Int[Tensor, "batch token kind"]
    ) -> Float[Tensor, ""]:
        """The loss of the tokens that are asked; 0 where none is."""
        asked = true[..., 0] != IGNORE_INDEX
        kinds = self.answers(self.norm(tokens[asked])).split(
            [1 + len(a) for a in ATTRIBUTES.values()], dim=-1
        )
        losses = [
            functional.cross_entropy(each, true[asked][:, index], reduction="sum")
            for index, each in enumerate(kinds)
        ]
        return torch.stack(losses).sum() / (len(losses) * asked.sum().clamp(min=1))
