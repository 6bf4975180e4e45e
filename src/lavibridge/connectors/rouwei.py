"""RouWei's adapter from language models to SDXL: wide blocks, a compression by queries, narrow blocks.

    X = W x + p;                    each wide block:    X attends to X, then an MLP
    C = MHA(Q, X);  g = sigmoid(W_g [Q ; C]);   Y = norm(g C + (1 - g) Q) + p'
    each narrow block: Y attends to Y, then an MLP      y = Y
    pooled = MLP(MHA(c, Y))         with a learned query c, where the vision model takes a pooled vector

Positions p are learned, one for each place of a text padded to ``positions`` tokens. The padding is hidden
from every attention, so only real tokens are computed here. Names and shapes of the weights are those of the
published files: Minthy, "RouWei-Gemma", 2025, read by NeuroSenko's ComfyUI_LLM_SDXL_Adapter; without a paper.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from lavibridge.connectors.base import Connected, Connector, Mask, Times, Tokens
from lavibridge.connectors.resampler import check_resampler_heads
from lavibridge.core.contracts import TextFeatures, TextSpec, VisionSpec
from lavibridge.core.errors import ModelError


class RouWei(Connector):
    """The connector; its width is that of the vision model's tokens."""

    class Config(Connector.Config):
        """Options of the connector; the defaults are those of the adapter for Gemma-3-1B."""

        latents: int = Field(default=308, ge=1)
        """Number of output tokens."""
        positions: int = Field(default=512, ge=1)
        """Number of tokens for which there is a position; the rest of a text is cut off."""
        wide_blocks: int = Field(default=2, ge=0)
        """Number of blocks over the text's tokens."""
        narrow_blocks: int = Field(default=3, ge=0)
        """Number of blocks over the output tokens."""
        heads: int = Field(default=16, ge=1)
        """Attention heads; their number divides the width of the vision model's tokens."""
        skip: int = Field(default=0, ge=0)
        """Number of tokens at the start of each text to leave out, such as the one that begins it."""
        padding_side: Literal["left", "right"] = "right"
        """The side on which texts were padded in training: the last token's position is the last one, or the
        first token's the first."""

    config: Config
    tokens_option = "latents"

    def __init__(self, config: Config, text: TextSpec, vision: VisionSpec) -> None:
        super().__init__(config, text, vision)
        self.pool = None  # it has its own
        width = vision.context
        check_resampler_heads(width, config.heads)
        self.seq_projection = nn.Linear(text.width, width) if text.width != width else None
        self.input_position_embeddings = _drawn(config.positions, width)
        self.output_position_embeddings = _drawn(config.latents, width)
        self.wide_attention_blocks = nn.ModuleList(
            _Block(width, config.heads) for _ in range(config.wide_blocks)
        )
        self.compression_queries = _drawn(config.latents, width)
        self.compression_attention = nn.MultiheadAttention(width, config.heads, batch_first=True)
        self.compression_norm = nn.LayerNorm(width)
        self.compression_gate = nn.Sequential(nn.Linear(2 * width, width), nn.Sigmoid())
        self.narrow_attention_blocks = nn.ModuleList(
            _Block(width, config.heads) for _ in range(config.narrow_blocks)
        )
        self.pools = vision.pooled is not None and vision.pooled != text.pooled
        if vision.pooled is not None and self.pools:
            self.pooling_attention = nn.MultiheadAttention(width, config.heads, batch_first=True)
            self.pooling_token = _drawn(1, width)
            self.pooled_projection = nn.Sequential(
                nn.Linear(width, width),
                nn.LayerNorm(width),
                nn.GELU(),
                nn.Identity(),
                nn.Linear(width, vision.pooled),
            )

    @property
    def input_layer(self) -> nn.Linear | None:
        """The layer that reads the text; None between equal widths."""
        return self.seq_projection

    def connect(self, x: Tokens, mask: Mask, t: Times | None) -> Connected:
        """Return the output tokens, none of which is padding. Raises ModelError for a text without tokens."""
        end = self.config.skip + self.config.positions
        x, mask = x[:, self.config.skip : end], mask[:, self.config.skip : end]
        if not bool(mask.any(dim=1).all()):
            raise ModelError(
                f"connector.skip is {self.config.skip}, which leaves a text without tokens: lower it"
            )
        wide = x if self.seq_projection is None else self.seq_projection(x)
        wide = wide + self.input_position_embeddings[0][self._places(mask)]
        hidden = None if bool(mask.all()) else ~mask
        for block in self.wide_attention_blocks:
            wide = block(wide, hidden)
        queries = self.compression_queries.expand(len(x), -1, -1)
        found, _ = self.compression_attention(
            queries, wide, wide, key_padding_mask=hidden, need_weights=False
        )
        gate = self.compression_gate(torch.cat([queries, found], dim=-1))
        narrow = self.compression_norm(gate * found + (1 - gate) * queries) + self.output_position_embeddings
        for block in self.narrow_attention_blocks:
            narrow = block(narrow, None)
        return narrow, torch.ones(narrow.shape[:2], dtype=torch.bool, device=narrow.device)

    def pooled(
        self, features: TextFeatures, tokens: Tensor, mask: Mask
    ) -> Float[Tensor, "batch pooled"] | None:
        """Return the pooled vector: the language model's own if it fits, otherwise the output tokens'."""
        if not self.pools:
            return super().pooled(features, tokens, mask)
        query = self.pooling_token.expand(len(tokens), -1, -1)
        found, _ = self.pooling_attention(query, tokens, tokens, need_weights=False)
        return self.pooled_projection(found[:, 0])

    def _places(self, mask: Mask) -> Tensor:
        """The position of each token; padding has any."""
        places = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
        if self.config.padding_side == "right":
            return places
        shift = self.config.positions - mask.sum(dim=1, keepdim=True)
        return (places + shift).clamp_max(self.config.positions - 1)


class _Block(nn.Module):
    """Self-attention and an MLP, each after a norm and around a residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tokens, hidden: Tensor | None) -> Tokens:
        given = self.norm1(x)
        x = x + self.attn(given, given, given, key_padding_mask=hidden, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


def _drawn(count: int, width: int) -> nn.Parameter:
    """Return new vectors, drawn from N(0, 0.02^2)."""
    return nn.Parameter(0.02 * torch.randn(1, count, width))
