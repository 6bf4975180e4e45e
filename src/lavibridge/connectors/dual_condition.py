"""Queries and hidden states: learned vectors condition the image model together with the prompt's own tokens.

    [h ; z] = language model([prompt ; Q])        y = W encoder([h ; z])

The vectors gather what the prompt asks for, and the tokens keep its detail: with vectors alone, the number of
vectors limits what passes. The encoder is bidirectional. Its published form continues the last six blocks of
the language model; here the blocks start anew, and the learned vectors replace positions.

Tang et al. 2025, "UniLIP: Adapting CLIP for Unified Multimodal Understanding, Generation and Editing", arXiv
2507.23278: 256 vectors, six blocks, InternVL3 into SANA.
"""

import torch
from pydantic import Field
from torch import nn

from lavibridge.connectors.base import Connected, Connector, Mask, Times, Tokens
from lavibridge.connectors.parts.blocks import TransformerBlock, head_count
from lavibridge.connectors.parts.read_out import ReadOutChoice
from lavibridge.core.contracts import ReadingSpec, TextSpec, VisionSpec


class DualCondition(Connector):
    """Returns one token per token of the prompt and one per learned vector."""

    class Config(Connector.Config):
        """Options of the connector; the defaults are the published ones."""

        read: ReadOutChoice | None = "last"
        """Which layers of the language model to read, of the prompt's tokens and of the vectors."""
        queries: int = Field(default=256, ge=1)
        """Number of learned vectors."""
        blocks: int = Field(default=6, ge=0)
        """Number of blocks of the encoder after the language model."""

    config: Config
    has_queries = True

    def __init__(self, config: Config, text: TextSpec, vision: VisionSpec) -> None:
        super().__init__(config, text, vision)
        heads = head_count(text.width)
        self.queries = nn.Parameter(0.02 * torch.randn(config.queries, text.width))
        self.blocks = nn.ModuleList(TransformerBlock(text.width, heads) for _ in range(config.blocks))
        self.proj = nn.Linear(text.width, vision.context)

    @property
    def reading(self) -> ReadingSpec:
        """Requests the states of the prompt's tokens and of the learned vectors."""
        return ReadingSpec(layers=self.read.layers, queries=self.queries, keeps_prompt=True)

    def connect(self, x: Tokens, mask: Mask, t: Times | None) -> Connected:
        """Return one token per real token and vector."""
        for block in self.blocks:
            x = block(x, mask)
        return self.proj(x), mask
