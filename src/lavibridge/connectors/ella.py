"""ELLA's timestep-aware semantic connector: at each timestep, latents read the part of the text that matters
then.

    e = W_b silu(W_a [cos(t f) ; sin(t f)])             the time
    L <- latents + W silu(e)                            a fixed number of tokens
    each block: L attends to [L ; X], then an MLP       with norms that the time shifts and scales

The language model and the denoiser stay frozen, so everything made for the denoiser (LoRA, ControlNet, ...)
still works. 66,820,608 weights between T5-XL and Stable Diffusion 1.5; names and shapes are those of the
published file. The published connector attends to the padding of texts of fixed length, as `see_padding:
connector` of the language model does; by default padding is masked.

Li et al. 2026 (arXiv 2602.03510) warn of weights over layers that depend on time alone: they lower the
fidelity of guided images, because under guidance the noise of the latents is not that of the nominal time. In
the miniature world, knowing the time neither helps nor harms beyond the intervals (docs/studies/README.md).
Compare with `resampler` before you train long.

Hu et al. 2024, "ELLA: Equip Diffusion Models with LLM for Enhanced Semantic Alignment", arXiv 2403.05135.
"""

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from lavibridge.connectors.base import Connected, Connector, Mask, Times, Tokens
from lavibridge.connectors.parts.perceiver import PerceiverBlock, TimeEmbedding, perceiver_latents
from lavibridge.connectors.resampler import check_resampler_heads
from lavibridge.core.contracts import TextSpec, VisionSpec


class EllaPerceiver(nn.Module):
    """The latents and their blocks."""

    def __init__(
        self, text_width: int, width: int, latents: int, time_width: int, blocks: list[PerceiverBlock]
    ) -> None:
        super().__init__()
        self.latents = perceiver_latents(latents, width)
        self.time_aware_linear = nn.Linear(time_width, width)
        self.proj_in = nn.Linear(text_width, width)
        self.perceiver_blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, mask: Tensor, time: Tensor) -> Tensor:
        latents = self.latents + self.time_aware_linear(functional.silu(time))
        text = self.proj_in(x)
        for block in self.perceiver_blocks:
            latents = block(latents, text, mask, time)
        return latents


class Ella(Connector):
    """The connector; its width is that of the vision model's tokens."""

    class Config(Connector.Config):
        """Options of the connector; the defaults are the published ones."""

        latents: int = Field(default=64, ge=1)
        """Number of output tokens."""
        blocks: int = Field(default=6, ge=1)
        """Number of blocks."""
        heads: int = Field(default=8, ge=1)
        """Attention heads; their number divides the width of the vision model's tokens."""
        time_channels: int = Field(default=320, ge=2, multiple_of=2)
        """Number of cosines and sines that encode the time."""
        time_width: int | None = Field(default=None, ge=1)
        """Width of the time embedding; by default that of the tokens."""

    config: Config
    tokens_option = "latents"
    time_aware = True
    block: Callable[[int, int, int], PerceiverBlock] = PerceiverBlock
    """Constructor of a block, from width, heads and time width."""

    def __init__(self, config: Config, text: TextSpec, vision: VisionSpec) -> None:
        super().__init__(config, text, vision)
        width = vision.context
        check_resampler_heads(width, config.heads)
        time_width = config.time_width or width
        self.time_embedding = TimeEmbedding(config.time_channels, time_width)
        blocks = [type(self).block(width, config.heads, time_width) for _ in range(config.blocks)]
        self.connector = EllaPerceiver(text.width, width, config.latents, time_width, blocks)

    @property
    def input_layer(self) -> nn.Linear:
        """The layer that reads the text."""
        return self.connector.proj_in

    def connect(self, x: Tokens, mask: Mask, t: Times | None) -> Connected:
        """Return the latents after all blocks, at the times ``t``."""
        assert t is not None  # forward ensures it
        latents = self.connector(x, mask, self.time_embedding(t).to(x))
        return latents, torch.ones(latents.shape[:2], dtype=torch.bool, device=latents.device)
