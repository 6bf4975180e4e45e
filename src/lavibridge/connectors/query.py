"""MetaQuery: learned vectors pass through the language model after the prompt and gather what it knows.

    [prompt ; Q] --language model--> states at Q --bidirectional encoder--> W2 gelu(W1 z) --> RMSNorm

The language model may stay frozen: the vectors query it, so that its knowledge can enter the conditioning.
The norm starts at the scale that the vision model was trained with. The published encoder has 24 blocks with
rotary positions and normed queries and keys; here the learned vectors replace the positions, because they
differ from one another anyway.

Pan et al. 2025, "Transfer between Modalities with MetaQueries", arXiv 2504.06256; the default of six blocks
is from OpenUni (Wu et al. 2025, arXiv 2505.23661).
"""

import torch
from pydantic import Field
from torch import nn

from lavibridge.connectors.base import Connected, Connector, Mask, Times, Tokens
from lavibridge.connectors.parts.blocks import TransformerBlock, head_count
from lavibridge.connectors.parts.read_out import ReadOutChoice
from lavibridge.core.contracts import ReadingSpec, TextSpec, VisionSpec


class Query(Connector):
    """Returns one token per learned vector."""

    class Config(Connector.Config):
        """Options of the connector."""

        read: ReadOutChoice | None = "last"
        """Which layers of the language model to read at the positions of the vectors."""
        queries: int = Field(default=64, ge=1)
        """Number of learned vectors."""
        blocks: int = Field(default=6, ge=0)
        """Number of blocks of the encoder after the language model."""

    config: Config
    tokens_option = "queries"
    has_queries = True

    def __init__(self, config: Config, text: TextSpec, vision: VisionSpec) -> None:
        super().__init__(config, text, vision)
        heads = head_count(text.width)
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
    def reading(self) -> ReadingSpec:
        """Requests the states at the positions of the learned vectors."""
        return ReadingSpec(layers=self.read.layers, queries=self.queries)

    def connect(self, x: Tokens, mask: Mask, t: Times | None) -> Connected:
        """Return one token per vector."""
        for block in self.blocks:
            x = block(x)
        return self.proj(x), mask
