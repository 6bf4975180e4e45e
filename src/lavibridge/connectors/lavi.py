"""LaVi-Bridge's adapter: two feed-forward networks, each after a norm, applied to every token by itself.

    y = FF2(norm2(FF1(norm1(x))))
    FF(x) = W_out dropout(a * gelu(b)),   (a, b) = W_in x, each four times as wide as x

No residual. Names and shapes of the weights are those of the published files.

Zhao et al. 2024, "Bridging Different Language Models and Generative Vision Models for Text-to-Image
Generation", arXiv 2403.07860.
"""

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from lavibridge.connectors.base import Connected, Connector, Mask, Times, Tokens
from lavibridge.core.contracts import TextSpec, VisionSpec

SPREAD_FLOOR = 0.02
VARIANCE_FLOOR = 0.005
"""Added before dividing, so that directions in which captions hardly differ are not blown up."""


class Gated(nn.Module):
    """GEGLU (Shazeer 2020, arXiv 2002.05202): the first half is the value, the second the gate."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, 2 * inner)

    def forward(self, x: Float[Tensor, "*token width"]) -> Float[Tensor, "*token inner"]:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * functional.gelu(gate)


class FeedForward(nn.Module):
    """Gated projection to four times the width, dropout, projection to the new width."""

    def __init__(self, width: int, new_width: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(
            Gated(width, 4 * width), nn.Dropout(dropout), nn.Linear(4 * width, new_width)
        )

    def forward(self, x: Float[Tensor, "*token width"]) -> Float[Tensor, "*token new_width"]:
        return self.net(x)


class LaviAdapter(Connector):
    """The published adapter, between any two widths."""

    class Config(Connector.Config):
        """Options of the adapter; the defaults are the published ones."""

        width: int | None = Field(default=None, ge=1)
        """Width between the two networks; by default the mean of the widths that it connects."""
        dropout: float = Field(default=0.1, ge=0, lt=1)
        """Share of inner features dropped in training."""
        whiten: bool = False
        """Begin with first weights to which the captions' features look uncorrelated and equally large."""

    config: Config

    def __init__(self, config: Config, text: TextSpec, vision: VisionSpec) -> None:
        super().__init__(config, text, vision)
        width = (text.width + vision.context) // 2 if config.width is None else config.width
        self.ff1 = FeedForward(text.width, width, config.dropout)
        self.ff2 = FeedForward(width, vision.context, config.dropout)
        self.norm1 = nn.LayerNorm(text.width)
        self.norm2 = nn.LayerNorm(width)

    @property
    def wants_calibration(self) -> bool:
        """With `whiten`."""
        return self.config.whiten

    @torch.no_grad()
    def calibrate(self, tokens: Float[Tensor, "token layer width"]) -> None:
        """Centre and scale each feature in norm1, and decorrelate them in FF1's first weights.

        A causal model's features lie almost on a line: what a word changes is a small part of them, and the
        random first weights of the published adapter pass on the rest. Shapes, names and roles of the weights
        stay the published ones (after Kessy et al. 2018, arXiv 1512.00809, ZCA-cor whitening).
        """
        read = self.read(tokens.transpose(0, 1)[None].float())[0]
        x = functional.layer_norm(read, self.norm1.normalized_shape)
        mean, scale = x.mean(0), x.std(0) + SPREAD_FLOOR
        z = (x - mean) / scale
        values, directions = torch.linalg.eigh(z.T @ z / len(z))
        shrunk = (values.clamp(min=0) + VARIANCE_FLOOR).rsqrt()
        self.norm1.weight.copy_(1 / scale)
        self.norm1.bias.copy_(-mean / scale)
        first = self.ff1.get_parameter("net.0.proj.weight")
        first.copy_(first @ (directions * shrunk) @ directions.T)

    def connect(self, x: Tokens, mask: Mask, t: Times | None) -> Connected:
        """Each real token's conditioning, and zeros for the padding, which no mask lets through anyway.

        One long prompt in a batch would otherwise have the adapter work mostly on padding.
        """
        adapted = self.ff2(self.norm2(self.ff1(self.norm1(x[mask]))))
        tokens = adapted.new_zeros(*mask.shape, adapted.shape[-1])
        tokens[mask] = adapted
        return tokens, mask
