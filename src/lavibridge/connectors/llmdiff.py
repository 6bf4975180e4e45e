"""The LLMDiff-Adapter: a second cross-attention reads every block of a decoder-only model.

    D_k  = h_{k+1} - h_k                   what block k adds to a token in its context; of the last: norm(h)
    D'_k = the same for the token alone    so D - D' is the contribution of the context
    c = h_0 + sum over k of g_k (D_k - D'_k) + [training] sqrt(2 softplus(s_k)) noise
    c <- c / rms(c)
    block: a1 e^b1 Attention(W_q x, W_k P c, W_v P c) + a2 e^b2 Attention(T_q x, T_k c, T_v c)

The first attention is the denoiser's own, frozen, behind one linear P; T, P, a, b, g and s are learned. The
second attention starts with weight 0.1. h_0 are the embeddings. The last block's output is known only after
the final norm, so the sum contains that normed output itself. `context_free: false` drops D', so that the
language model runs once: the result is a learned sum of its layers.

Dong et al. 2025, "Decoder-Only LLMs are Better Controllers for Diffusion Models", arXiv 2502.04412. Neither
its code nor its full text was available: the formulas come from a reader's notes, the initial values and the
norm are ours, and nothing here was compared with the authors' numbers.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from lavibridge.connectors.base import Connected, Connector, Mask, Times, Tokens
from lavibridge.core.contracts import (
    Attention,
    BlockSpec,
    Conditioning,
    ReadingSpec,
    TextFeatures,
    TextSpec,
    VisionSpec,
)
from lavibridge.core.errors import ModelError

_INITIAL_NOISE = -6.0
"""Initial value of s: a standard deviation of 0.07."""

Layers = Float[Tensor, "batch layer token width"]


class _ContextScore(nn.Module):
    """Computes c from the residual stream of each token, in its context and alone."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(steps))
        self.noise = nn.Parameter(torch.full((steps,), _INITIAL_NOISE))

    def forward(self, hidden: Layers, context_free: Layers | None) -> Tokens:
        score = _added(hidden)
        if context_free is not None:
            score = score - _added(context_free)
        c = hidden[:, 0] + torch.einsum("l,bltw->btw", self.gain, score)
        if self.training:
            # Independent noise at every step adds up to one draw with the summed variance.
            c = c + (2 * functional.softplus(self.noise)).sum().sqrt() * torch.randn_like(c)
        return functional.rms_norm(c, c.shape[-1:])


def _added(hidden: Layers) -> Float[Tensor, "batch block token width"]:
    """Return what each block adds; the last entry is the normed output."""
    return torch.cat([hidden[:, :-1].diff(dim=1), hidden[:, -1:]], dim=1)


class _SecondAttention(nn.Module):
    """The second attention of one cross-attention layer of the denoiser."""

    def __init__(self, text_width: int, block: BlockSpec) -> None:
        super().__init__()
        self.heads = block.heads
        self.to_q = nn.Linear(block.width, block.inner, bias=False)
        self.to_k = nn.Linear(text_width, block.inner, bias=False)
        self.to_v = nn.Linear(text_width, block.inner, bias=False)
        self.scale = nn.Parameter(torch.tensor([1.0, 0.1]))
        self.exponent = nn.Parameter(torch.zeros(2))

    def forward(self, c: Tokens, mask: Mask) -> Attention:
        """Return the layer's attention over c; all queries share its keys and values."""
        k, v = self._by_head(self.to_k(c)), self._by_head(self.to_v(c))
        own, second = self.scale * self.exponent.exp()
        seen = mask[:, None, None, :]

        def attend(queries: Tensor, answer: Tensor) -> Tensor:
            q = self._by_head(self.to_q(queries.to(c)))
            found = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
            return own * answer + second * found.transpose(1, 2).flatten(2)

        return attend

    def _by_head(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class LlmDiff(Connector):
    """Conditions every cross-attention layer."""

    class Config(Connector.Config):
        """Options of the adapter."""

        read: None = None
        """None: the adapter reads all layers."""
        context_free: bool = True
        """Subtract the features of each token without its context; the language model then runs twice."""

    config: Config
    per_block = True

    def __init__(self, config: Config, text: TextSpec, vision: VisionSpec) -> None:
        if not vision.blocks:
            raise ModelError(
                "the connector 'llmdiff' extends cross-attention layers, and this vision model has none that "
                "stands alone: use 'lavi', 'ella' or another connector"
            )
        super().__init__(config, text, vision)
        self.scores = _ContextScore(text.layers - 1)
        self.proj = nn.Linear(text.width, vision.context)
        self.names = tuple(vision.blocks)
        self.second = nn.ModuleList(_SecondAttention(text.width, block) for block in vision.blocks.values())

    @property
    def reading(self) -> ReadingSpec:
        """Requests the embeddings and every block."""
        return ReadingSpec(layers=tuple(range(self.text.layers)), context_free=self.config.context_free)

    def forward(self, features: TextFeatures, t: Times | None = None) -> Conditioning:
        """Return tokens for the layers' own attention, and the second attention of each layer."""
        c = self.scores(features.hidden, features.context_free)
        tokens, mask = self.connect(c, features.mask, t)
        blocks = {
            name: second(c, features.mask) for name, second in zip(self.names, self.second, strict=True)
        }
        return self.conditioning(features, tokens, mask, blocks)

    def connect(self, x: Tokens, mask: Mask, t: Times | None) -> Connected:
        """Return P c."""
        return self.proj(x), mask
