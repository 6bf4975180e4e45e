"""LI-DiT's refiner: bidirectional blocks add what a causal language model could not look ahead to.

    g = W silu(mean of tokens + W_t time) + b, zero at first, one for each part of each block
    x <- x + g_a attention(LN(x)),   x <- x + g_m MLP(LN(x))          then any other connector

Two blocks raised a frozen LLaMA3-8B from 66.15 to 77.08 on DPG-Bench, and bidirectional T5 hardly at all. Ma
et al. 2024 (LI-DiT), arXiv 2406.11831.
"""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from lavibridge.connectors.base import Connected, Connector, Mask, Times, Tokens
from lavibridge.connectors.parts.blocks import TransformerBlock, head_count
from lavibridge.connectors.parts.following import following_tokens, read_following
from lavibridge.connectors.parts.perceiver import TimeEmbedding
from lavibridge.core.contracts import ReadingSpec, TextFeatures, TextSpec, VisionSpec
from lavibridge.core.errors import ModelError

_TIME_CHANNELS = 256


class _GatedTransformerBlock(TransformerBlock):
    """A transformer block with a gate on each of its two parts."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads)
        self.gates = nn.Linear(width, 2 * width)
        nn.init.zeros_(self.gates.weight)
        nn.init.zeros_(self.gates.bias)

    def forward(self, x: Tokens, mask: Mask, condition: Float[Tensor, "batch 1 width"]) -> Tokens:  # type: ignore[override]
        attended, transformed = self.gates(functional.silu(condition)).chunk(2, dim=-1)
        x = x + attended * self.attention(self.norm1(x), mask)
        return x + transformed * self.mlp(self.norm2(x))


class Refiner(Connector):
    """Refines tokens and passes them to another connector."""

    class Config(Connector.Config):
        """Options of the refiner."""

        blocks: int = Field(default=2, ge=1)
        """Number of blocks."""
        then: str | Mapping[str, Any] = "linear"
        """The connector that follows: a kind, or a mapping with `kind` and its options."""

    config: Config
    time_aware = True

    def __init__(self, config: Config, text: TextSpec, vision: VisionSpec) -> None:
        super().__init__(config, text, vision)
        following, options = read_following(config.then)
        refined = TextSpec(width=text.width, layers=1, pooled=text.pooled)
        self.then: Connector = following(options, refined, vision)
        if self.then.per_block or self.then.reading != ReadingSpec(layers=self.then.read.layers):
            raise ModelError(
                f"connector.then: {type(self.then).__name__} reads the language model itself, which leaves "
                "nothing to refine before it: choose another"
            )
        self.pool = None  # the following connector pools
        heads = head_count(text.width)
        self.time = TimeEmbedding(_TIME_CHANNELS, text.width)
        self.refining = nn.ModuleList(_GatedTransformerBlock(text.width, heads) for _ in range(config.blocks))

    @classmethod
    def fixed_tokens(cls, config: Connector.Config) -> tuple[str, int] | None:
        """Return those of the following connector."""
        assert isinstance(config, cls.Config)
        return following_tokens(config.then)

    @property
    def needs_calibration(self) -> bool:
        """Whether the following connector needs it; the refiner starts as the identity, so both read the same
        features."""
        return super().needs_calibration or self.then.needs_calibration

    def calibrate(self, tokens: Float[Tensor, "token layer width"]) -> None:
        """Calibrate the following connector."""
        self.then.calibrate(self.features_of(tokens)[:, None])

    def connect(self, x: Tokens, mask: Mask, t: Times | None) -> Connected:
        """Return the following connector's output for the refined tokens."""
        assert t is not None  # forward ensures it
        real = mask[..., None].to(x)
        condition = (x * real).sum(1, keepdim=True) / real.sum(1, keepdim=True) + self.time(t).to(x)
        for block in self.refining:
            x = block(x, mask, condition)
        return self.then.connect(self.then.read(x[:, None]), mask, t)

    def pooled(self, features: TextFeatures, tokens: Tensor, mask: Mask) -> Tensor | None:
        """Return the following connector's pooled vector."""
        return self.then.pooled(features, tokens, mask)
