"""A resampler: a fixed number of latents attends to a text of any length; ELLA's ablation without time.

    L <- latents;  X = W x + b;  each block: L attends to [L ; X], then an MLP       y = L

8.71 M weights with one block and 44.16 M with six at the published widths. Hu et al. 2024, arXiv 2403.05135,
table 6; after Flamingo (Alayrac et al. 2022, arXiv 2204.14198).
"""

import torch
from pydantic import Field
from torch import nn

from lavibridge.connectors.base import Connected, Connector, Mask, Times, Tokens
from lavibridge.connectors.parts.perceiver import PerceiverBlock, perceiver_latents
from lavibridge.core.contracts import TextSpec, VisionSpec
from lavibridge.core.errors import ModelError


class Resampler(Connector):
    """The connector; its width is that of the vision model's tokens."""

    class Config(Connector.Config):
        """Options of the resampler; the defaults are the published ones."""

        latents: int = Field(default=64, ge=1)
        """Number of output tokens."""
        blocks: int = Field(default=6, ge=1)
        """Number of blocks."""
        heads: int = Field(default=8, ge=1)
        """Attention heads; their number divides the width of the vision model's tokens."""

    config: Config
    tokens_option = "latents"

    def __init__(self, config: Config, text: TextSpec, vision: VisionSpec) -> None:
        super().__init__(config, text, vision)
        width = vision.context
        check_resampler_heads(width, config.heads)
        self.latents = perceiver_latents(config.latents, width)
        self.proj_in = nn.Linear(text.width, width)
        self.perceiver_blocks = nn.ModuleList(
            PerceiverBlock(width, config.heads) for _ in range(config.blocks)
        )

    @property
    def input_layer(self) -> nn.Linear:
        """The layer that reads the text."""
        return self.proj_in

    def connect(self, x: Tokens, mask: Mask, t: Times | None) -> Connected:
        """Return the latents after all blocks."""
        text = self.proj_in(x)
        latents = self.latents.expand(len(x), -1, -1)
        for block in self.perceiver_blocks:
            latents = block(latents, text, mask, None)
        return latents, torch.ones(latents.shape[:2], dtype=torch.bool, device=latents.device)


def check_resampler_heads(width: int, heads: int, option: str = "heads") -> None:
    """Raise ModelError if the number of heads, which ``option`` sets, does not divide the width."""
    if width % heads:
        fitting = [count for count in range(1, 17) if width % count == 0]
        raise ModelError(
            f"connector.{option} is {heads}, which does not divide the width of {width}: "
            f"choose one of {', '.join(map(str, fitting))}"
        )
