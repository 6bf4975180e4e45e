"""Stacked Channel Bridging: learned vectors pass through the language model and are read in several layers.

    x = [z_5 ; z_11 ; ... ; z_35] at Q in [prompt ; Q]        y = W2 encoder(W1 x)

DeepGen calls the vectors think tokens. They are read in every sixth layer below the output: six layers of the
36 of Qwen2.5-VL-3B, 12,288 channels. W2 starts at zero, so that a bridge starts without any influence of the
prompt. The published blocks are 11,946 wide inside, and the published pooled vector is a linear map of the
mean of the encoder's output; here blocks and pooled vector are those of the other connectors.

Wang et al. 2026, "DeepGen 1.0", arXiv 2602.12205: 128 vectors, an encoder of six blocks, 2048 wide, with 32
heads, into an image model of the size of Stable Diffusion 3.5 Medium.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from lavibridge.connectors.base import Connected, Connector, Mask, Times, Tokens
from lavibridge.connectors.parts.blocks import TransformerBlock
from lavibridge.connectors.parts.stacked_layers import StackedReadOut
from lavibridge.connectors.resampler import check_resampler_heads
from lavibridge.core.contracts import ReadingSpec, TextSpec, VisionSpec

_EVERY = 6
"""By default every sixth layer is read, counted from the one below the output."""


class StackedQuery(Connector):
    """Returns one token per learned vector."""

    class Config(Connector.Config):
        """Options of the connector; the defaults are the published ones."""

        read: None = None
        """None: the connector reads `layers`."""
        layers: Annotated[tuple[int, ...], Field(min_length=1)] | None = None
        """The layers to stack: 0 is the embeddings, -1 the normed output. None takes every sixth below the
        output."""
        queries: int = Field(default=128, ge=1)
        """Number of learned vectors."""
        width: int = Field(default=2048, ge=1)
        """Width of the encoder."""
        blocks: int = Field(default=6, ge=0)
        """Number of blocks of the encoder."""
        heads: int = Field(default=32, ge=1)
        """Attention heads; their number divides the width."""

    config: Config
    tokens_option = "queries"
    has_queries = True

    def __init__(self, config: Config, text: TextSpec, vision: VisionSpec) -> None:
        super().__init__(config, text, vision)
        check_resampler_heads(config.width, config.heads)
        below = text.layers - 2
        layers = tuple(range(below, 0, -_EVERY)) or (text.layers - 1,)
        self.read = StackedReadOut(text, layers if config.layers is None else config.layers)
        self.queries = nn.Parameter(torch.randn(config.queries, text.width) / text.width**0.5)
        self.proj_in = nn.Linear(self.read.width, config.width)
        self.blocks = nn.ModuleList(
            TransformerBlock(config.width, config.heads) for _ in range(config.blocks)
        )
        self.proj_out = nn.Linear(config.width, vision.context)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    @property
    def reading(self) -> ReadingSpec:
        """Requests the states at the positions of the learned vectors."""
        return ReadingSpec(layers=self.read.layers, queries=self.queries)

    def connect(self, x: Tokens, mask: Mask, t: Times | None) -> Connected:
        """Return one token per vector."""
        x = self.proj_in(x)
        for block in self.blocks:
            x = block(x)
        return self.proj_out(x), mask
