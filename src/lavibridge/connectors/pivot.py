"""Two halves with a fixed space Z between them, so that any language half goes with any vision half.

    language half   Z = N(L)    L <- latents;  X = W x + b;   each block: L attends to [L ; X], then an MLP
    vision half     y = K       K <- latents;  Y = V Z + c;   each block: K attends to [K ; Y], then an MLP

x are features of a text of any length, Z has `slots` rows of `width` numbers, and y are the conditioning
tokens; the vision half also pools the vector of vision models that take one. N is a layer norm without
weights, which gives Z one scale. Each half is a resampler (Hu et al. 2024, arXiv 2403.05135, table 6).

Lu et al. 2018 (arXiv 1804.08198) translate between languages through such a space of fixed size. How halves
are saved and combined: `lavibridge/pivot`.
"""

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from lavibridge.connectors.base import Connected, Connector, Mask, Times, Tokens
from lavibridge.connectors.parts.perceiver import PerceiverBlock, perceiver_latents
from lavibridge.connectors.parts.pool import AttentionPool
from lavibridge.connectors.parts.read_out import ReadOut, make_read_out
from lavibridge.connectors.resampler import check_resampler_heads
from lavibridge.core.contracts import Conditioning, TextFeatures, TextSpec, VisionSpec

Slots = Float[Tensor, "batch slot pivot"]


class Pivot(Connector):
    """A language half and a vision half as one connector."""

    class Config(Connector.Config):
        """Options of both halves; `slots` and `width` are those of the space between them."""

        slots: int = Field(default=32, ge=1)
        """Number of rows of Z."""
        width: int = Field(default=128, ge=2)
        """Numbers in each row of Z."""
        language_blocks: int = Field(default=1, ge=1)
        """Blocks of the language half."""
        language_heads: int = Field(default=8, ge=1)
        """Attention heads of the language half; their number divides `width`."""
        latents: int = Field(default=32, ge=1)
        """Number of conditioning tokens."""
        vision_blocks: int = Field(default=1, ge=1)
        """Blocks of the vision half."""
        vision_heads: int = Field(default=8, ge=1)
        """Attention heads of the vision half; their number divides the width of the vision model's tokens."""

    config: Config
    tokens_option = "latents"

    def __init__(self, config: Config, text: TextSpec, vision: VisionSpec) -> None:
        super().__init__(config, text, vision)
        del self.read  # the language half has its own
        self.pool = None  # and so has the vision half
        self.language_half = LanguageHalf(config, text)
        self.vision_half = VisionHalf(config, vision)

    @property
    def read(self) -> ReadOut:  # type: ignore[override]
        """The read-out of the language half."""
        return self.language_half.read

    @property
    def input_layer(self) -> nn.Linear:
        """The layer that reads the text."""
        return self.language_half.proj_in

    def connect(self, x: Tokens, mask: Mask, t: Times | None) -> Connected:
        """Return the vision half's tokens for the slots of the text."""
        tokens = self.vision_half(self.language_half(x, mask))
        return tokens, _all_real(tokens)

    def pooled(
        self, features: TextFeatures, tokens: Tensor, mask: Mask
    ) -> Float[Tensor, "batch pooled"] | None:
        """Return the vector that the vision half pools, whether or not the language model has its own."""
        pool = self.vision_half.pool
        return None if pool is None else pool(tokens, mask)

    def condition_slots(self, slots: Slots) -> Conditioning:
        """Return the vision half's conditioning for slots, whatever filled them."""
        tokens = self.vision_half(slots)
        mask, pool = _all_real(tokens), self.vision_half.pool
        return Conditioning(tokens=tokens, mask=mask, pooled=None if pool is None else pool(tokens, mask))


class _Half(nn.Module):
    """A resampler: latents attend to a sequence of any length."""

    def __init__(self, read_width: int, width: int, latents: int, blocks: int, heads: int) -> None:
        super().__init__()
        self.latents = perceiver_latents(latents, width)
        self.proj_in = nn.Linear(read_width, width)
        self.perceiver_blocks = nn.ModuleList(PerceiverBlock(width, heads) for _ in range(blocks))

    def resample(self, x: Tokens, mask: Mask) -> Float[Tensor, "batch latent _"]:
        """Return the latents after all blocks."""
        read = self.proj_in(x)
        latents = self.latents.expand(len(x), -1, -1)
        for block in self.perceiver_blocks:
            latents = block(latents, read, mask, None)
        return latents


class LanguageHalf(_Half):
    """Maps a language model's features to the slots of Z."""

    def __init__(self, config: Pivot.Config, text: TextSpec) -> None:
        check_resampler_heads(config.width, config.language_heads, "language_heads")
        super().__init__(
            text.width, config.width, config.slots, config.language_blocks, config.language_heads
        )
        self.read = make_read_out(config.read, text)

    def forward(self, x: Tokens, mask: Mask) -> Slots:
        """Return the slots of one feature per token, as `read` computes them."""
        return functional.layer_norm(self.resample(x, mask), self.latents.shape[-1:])

    def slots(self, features: TextFeatures) -> Slots:
        """Return the slots of features."""
        return self(self.read(features.hidden), features.mask)


class VisionHalf(_Half):
    """Maps the slots of Z to a vision model's conditioning tokens."""

    def __init__(self, config: Pivot.Config, vision: VisionSpec) -> None:
        check_resampler_heads(vision.context, config.vision_heads, "vision_heads")
        super().__init__(
            config.width, vision.context, config.latents, config.vision_blocks, config.vision_heads
        )
        self.pool = None if vision.pooled is None else AttentionPool(vision.context, vision.pooled)

    def forward(self, slots: Slots) -> Float[Tensor, "batch token context"]:
        """Return the conditioning tokens."""
        return self.resample(slots, _all_real(slots))


def _all_real(tokens: Tensor) -> Mask:
    return torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
