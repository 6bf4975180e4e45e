"""Depth-wise semantic routing: every cross-attention layer of the denoiser reads its own mean of text layers.

    z_d = sum over k = 1..L of softmax(w_d)_k LN(h_k)        LN without weights; w_d starts at zero
    y_d = W z_d + b                                           the tokens of layer d

Shallow and deep layers of a denoiser ask for different things, and a language model's layers differ in what
they know. The published denoiser trains along and reads z_d without W, which here fits a frozen denoiser.

Li et al. 2026, "Semantic Routing", arXiv 2602.03510: 24 layers read 36 layers of Qwen3-VL-4B, 864 weights w.
They fuse by depth, by time, or by both, and depth alone is best. Weights that depend on time alone lower the
fidelity of images: under classifier-free guidance the noise of the latents is not that of the nominal time.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lavibridge.connectors.base import Connected, Connector, Mask, Times, Tokens
from lavibridge.core.contracts import (
    BlockTokens,
    Conditioning,
    ReadingSpec,
    TextFeatures,
    TextSpec,
    VisionSpec,
)
from lavibridge.core.errors import ModelError


class SemanticRouting(Connector):
    """Returns one token per token of the prompt, and other such tokens for each cross-attention layer."""

    class Config(Connector.Config):
        """Options of the connector."""

        read: None = None
        """None: the connector reads every block of the language model."""

    config: Config
    per_block = True

    def __init__(self, config: Config, text: TextSpec, vision: VisionSpec) -> None:
        if not vision.blocks:
            raise ModelError(
                "the connector 'semantic_routing' gives cross-attention layers tokens of their own, and this "
                "vision model has none that stands alone: use 'stacked', 'lavi' or another connector"
            )
        super().__init__(config, text, vision)
        self.names = tuple(vision.blocks)
        self.logits = nn.Parameter(torch.zeros(len(self.names), text.layers - 1))
        self.proj = nn.Linear(text.width, vision.context)

    @property
    def reading(self) -> ReadingSpec:
        """Requests the output of every block."""
        return ReadingSpec(layers=tuple(range(1, self.text.layers)))

    def features_of(self, tokens: Float[Tensor, "token layer width"]) -> Float[Tensor, "token _"]:
        """Return the mean over the cross-attention layers of what they read."""
        normed = functional.layer_norm(tokens.float(), tokens.shape[-1:])
        return torch.einsum("l,tlw->tw", self.logits.softmax(1).mean(0), normed)

    @property
    def input_layer(self) -> nn.Linear:
        """The only layer, which all cross-attention layers share."""
        return self.proj

    def forward(self, features: TextFeatures, t: Times | None = None) -> Conditioning:
        """Return the tokens of each cross-attention layer, and their mean as the tokens for all others."""
        normed = functional.layer_norm(features.hidden, features.hidden.shape[-1:])
        read = torch.einsum("dl,bltw->dbtw", self.logits.softmax(1), normed)
        tokens, mask = self.connect(read.mean(0), features.mask, t)
        beside = features.passthrough_tokens
        blocks = {}
        for name, z in zip(self.names, read, strict=True):
            own = self.proj(z)
            blocks[name] = BlockTokens(
                tokens=own if beside is None else torch.cat([beside.to(own), own], dim=1)
            )
        return self.conditioning(features, tokens, mask, blocks)

    def connect(self, x: Tokens, mask: Mask, t: Times | None) -> Connected:
        """Return W x + b."""
        return self.proj(x), mask
