"""MetaQuery: learned vectors go through the language model behind the prompt and bring back what it knows.

    [prompt ; Q] --language model--> states at Q --encoder (sees both ways)--> W2 gelu(W1 z) --> RMSNorm

The language model may stay frozen; it is asked rather than read, so that what it knows can come along. The
norm begins at the scale that the vision model was trained with. The published encoder has 24 blocks with
rotary positions and normed queries and keys; here positions are left to the vectors, which differ anyway.

Pan et al. 2025, "Transfer between Modalities with MetaQueries", arXiv 2504.06256; six blocks are from OpenUni
(Wu et al. 2025, arXiv 2505.23661).
"""

import torch
from pydantic import Field
from torch import nn

from lavibridge.connectors.base import Connected, Connector, Mask, Times, Tokens
from lavibridge.connectors.parts.blocks import TransformerBlock
from lavibridge.connectors.parts.read_out import ReadOutChoice
from lavibridge.core.contracts import Reading, TextSpec, VisionSpec

HEAD_WIDTH = 64


class Query(Connector):
    """As many tokens as there are vectors."""

    class Config(Connector.Config):
        """Options of the connector."""

        read: ReadOutChoice | None = "last"
        """Which layers of the language model, at the vectors' places."""
        queries: int = Field(default=64, ge=1)
        """Number of learned vectors."""
        blocks: int = Field(default=6, ge=0)
        """Number of blocks of the encoder behind the language model."""

    config: Config
    has_queries = True

    def __init__(self, config: Config, text: TextSpec, vision: VisionSpec) -> None:
        super().__init__(config, text, vision)
        heads = max(1, text.width // HEAD_WIDTH)
        self.queries = nn.Parameter(0.02 * torch.randn(config.queries, text.width))
        self.blocks = nn.ModuleList(TransformerBlock(text.width, heads) for _ in range(config.blocks))
        scale = nn.RMSNorm(vision.context, eps=1e-6)
        nn.init.constant_(scale.weight, vision.rms or 1.0)
        self.proj = nn.Sequential(
            nn.Linear(text.width, vision.context),
            nn.GELU(approximate="tanh"),
            nn.Linear(vision.context, vision.context),
            scale,
        )

    @property
    def reading(self) -> Reading:
        """The states at the learned vectors' places."""
        return Reading(layers=self.read.layers, queries=self.queries)

    def connect(self, x: Tokens, mask: Mask, t: Times | None) -> Connected:
        """One token for each vector."""
        for block in self.blocks:
            x = block(x)
        return self.proj(x), mask
