"""Read-outs: combine a language model's layers into one feature per token.

    last        h_L                                      the input of the model's own head
    layer: k    h_k
    mean        mean over k = 1..L of h_k
    norm_mean   mean over k = 1..L of LN(h_k)            LN without weights; no layer dominates
    learned     sum over k = 1..L of softmax(w)_k LN(h_k)
    attention   two transformer blocks along the layers of each token, then a learned sum of their outputs

h_0, the embeddings, is not among the L. For a decoder-only model the last layer is the worst choice measured
and norm_mean the best without weights (Wang et al. 2025, arXiv 2506.08210); `attention` follows UniFusion (Li
et al. 2025, arXiv 2510.12789), which does not publish its numbers of blocks and heads.
"""

from abc import ABC, abstractmethod
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lavibridge.connectors.parts.blocks import TransformerBlock, head_count
from lavibridge.core.config import Config
from lavibridge.core.contracts import TextSpec
from lavibridge.core.errors import ModelError

ReadOutName = Literal["last", "mean", "norm_mean", "learned", "attention"]

Layers = Float[Tensor, "batch layer token width"]
Tokens = Float[Tensor, "batch token width"]


class OneLayerReadOut(Config):
    """A single layer."""

    layer: int
    """0 is the embeddings, -1 the normed output."""


ReadOutChoice = ReadOutName | OneLayerReadOut


class ReadOut(nn.Module, ABC):
    """Returns one feature per token; ``layers`` are the layers that it requests from the language model."""

    layers: tuple[int, ...]

    @abstractmethod
    def forward(self, hidden: Layers) -> Tokens:
        """Combine the requested layers, in their order."""


class _SingleLayer(ReadOut):
    """Returns a single layer unchanged."""

    def __init__(self, layer: int) -> None:
        super().__init__()
        self.layers = (layer,)

    def forward(self, hidden: Layers) -> Tokens:
        return hidden[:, -1]


class MeanReadOut(ReadOut):
    """The plain mean of all blocks' outputs."""

    def __init__(self, text: TextSpec) -> None:
        super().__init__()
        self.layers = tuple(range(1, text.layers))

    def forward(self, hidden: Layers) -> Tokens:
        return hidden.mean(dim=1)


class _NormMean(MeanReadOut):
    """The mean of all blocks' outputs, each normed separately."""

    def forward(self, hidden: Layers) -> Tokens:
        return functional.layer_norm(hidden, hidden.shape[-1:]).mean(dim=1)


class LearnedReadOut(MeanReadOut):
    """A learned mean that starts as `norm_mean`."""

    def __init__(self, text: TextSpec) -> None:
        super().__init__(text)
        self.weights = nn.Parameter(torch.zeros(len(self.layers)))

    def forward(self, hidden: Layers) -> Tokens:
        normed = functional.layer_norm(hidden, hidden.shape[-1:])
        return torch.einsum("l,bltw->btw", self.weights.softmax(0), normed)


class _LayerAttention(MeanReadOut):
    """Lets the layers of a token attend to each other; starts with their mean as output weights."""

    def __init__(self, text: TextSpec) -> None:
        super().__init__(text)
        heads = head_count(text.width)
        self.blocks = nn.ModuleList(TransformerBlock(text.width, heads) for _ in range(2))
        self.collapse = nn.Parameter(torch.full((len(self.layers),), 1 / len(self.layers)))

    def forward(self, hidden: Layers) -> Tokens:
        batch, layers, tokens, width = hidden.shape
        normed = functional.layer_norm(hidden, (width,))
        x = normed.transpose(1, 2).reshape(batch * tokens, layers, width)
        for block in self.blocks:
            x = block(x)
        return torch.einsum("l,nlw->nw", self.collapse, x).unflatten(0, (batch, tokens))


def make_read_out(choice: ReadOutChoice | None, text: TextSpec) -> ReadOut:
    """Build a read-out; None takes the language model's default.

    Raises ModelError for a layer that the language model does not have.
    """
    if isinstance(choice, OneLayerReadOut):
        if not -text.layers <= choice.layer < text.layers:
            raise ModelError(
                f"connector.read: layer {choice.layer} does not exist; the language model has layers 0 to "
                f"{text.layers - 1} (or -1 to -{text.layers}, counted from the end)"
            )
        return _SingleLayer(choice.layer)
    kinds = {
        "mean": MeanReadOut,
        "norm_mean": _NormMean,
        "learned": LearnedReadOut,
        "attention": _LayerAttention,
    }
    chosen = text.read if choice is None else choice
    return _SingleLayer(-1) if chosen == "last" else kinds[chosen](text)
