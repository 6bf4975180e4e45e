"""LaVi-Bridge's adapter: two feed-forward networks, each after a norm, applied to every token separately.

    y = FF2(norm2(FF1(norm1(x))))
    FF(x) = W_out dropout(a * gelu(b)),   (a, b) = W_in x, each four times as wide as x

It has no residual connection. Names and shapes of the weights are those of the published files.

Zhao et al. 2024, "Bridging Different Language Models and Generative Vision Models for Text-to-Image
Generation", arXiv 2403.07860.
"""

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from lavibridge.connectors.base import Connected, Connector, Mask, Times, Tokens
from lavibridge.connectors.parts.whitening import compute_whitening
from lavibridge.core.contracts import TextSpec, VisionSpec


class _GEGLU(nn.Module):
    """Multiplies the first half by the GELU of the second (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, x: Float[Tensor, "*token width"]) -> Float[Tensor, "*token inner"]:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * functional.gelu(gate)


class _FeedForward(nn.Module):
    """Gated projection to four times the width, dropout, projection to the new width."""

    def __init__(self, width: int, new_width: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(
            _GEGLU(width, 4 * width), nn.Dropout(dropout), nn.Linear(4 * width, new_width)
        )

    def forward(self, x: Float[Tensor, "*token width"]) -> Float[Tensor, "*token new_width"]:
        return self.net(x)


class LaviAdapter(Connector):
    """The published adapter, between any two widths."""

    class Config(Connector.Config):
        """Options of the adapter; the defaults are the published ones."""

        width: int | None = Field(default=None, ge=1)
        """Width between the two networks; by default the mean of the widths of both models."""
        dropout: float = Field(default=0.1, ge=0, lt=1)
        """Dropout probability of inner features in training."""

    config: Config

    def __init__(self, config: Config, text: TextSpec, vision: VisionSpec) -> None:
        super().__init__(config, text, vision)
        width = (text.width + vision.context) // 2 if config.width is None else config.width
        self.ff1 = _FeedForward(text.width, width, config.dropout)
        self.ff2 = _FeedForward(width, vision.context, config.dropout)
        self.norm1 = nn.LayerNorm(text.width)
        self.norm2 = nn.LayerNorm(width)

    @property
    def input_layer(self) -> nn.Linear:
        """The first layer of FF1."""
        layer = self.ff1.get_submodule("net.0.proj")
        assert isinstance(layer, nn.Linear)
        return layer

    @property
    def output_layer(self) -> nn.Linear:
        """The last layer of FF2."""
        layer = self.ff2.get_submodule("net.2")
        assert isinstance(layer, nn.Linear)
        return layer

    @torch.no_grad()
    def calibrate(self, tokens: Float[Tensor, "token layer width"]) -> None:
        """Centre and scale each feature in norm1, and decorrelate them in FF1's first weights.

        Shapes, names and roles of the weights stay the published ones.
        """
        found = compute_whitening(
            functional.layer_norm(self.features_of(tokens), self.norm1.normalized_shape)
        )
        self.norm1.weight.copy_(1 / found.spread)
        self.norm1.bias.copy_(-found.mean / found.spread)
        self.input_layer.weight.copy_(self.input_layer.weight @ found.matrix)

    def connect(self, x: Tokens, mask: Mask, t: Times | None) -> Connected:
        """Return each real token's conditioning, and zeros for the padding, which every mask hides anyway.

        Otherwise one long prompt in a batch would make the adapter compute mostly padding.
        """
        adapted = self.ff2(self.norm2(self.ff1(self.norm1(x[mask]))))
        tokens = adapted.new_zeros(*mask.shape, adapted.shape[-1])
        tokens[mask] = adapted
        return tokens, mask
