"""An attention processor that lets a per-block connector replace a layer's attention.

    q = W_q x,  k = W_k y,  v = W_v y,   answer = softmax(q k^T / sqrt(d)) v      unchanged
    W_o attend(x, answer)                                                   the connector's `attend`

The connector's functions are arguments of each call and stored nowhere. Gradient checkpointing, which
repeats the call, therefore sees them again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from lavibridge.core.contracts import Attention, BlockSpec


def cross_attention_layers(backbone: nn.Module) -> dict[str, BlockSpec]:
    """Return the denoiser's cross-attention layers by name, without an `attn2` that is self-attention."""
    named: dict[str, Any] = {
        name: module for name, module in backbone.named_modules() if name.endswith("attn2")
    }
    return {
        name: BlockSpec(
            width=int(module.to_q.in_features),
            inner=int(module.to_q.out_features),
            heads=int(module.heads),
        )
        for name, module in named.items()
        if module.is_cross_attention
    }


@dataclass(frozen=True, kw_only=True)
class MaskWithBlocks:
    """A mask that carries per-block functions, for denoisers that pass their layers nothing but the mask."""

    mask: Tensor | None
    """Added to the attention scores, (batch, 1, token)."""
    blocks: Mapping[str, Attention]
    ndim: int = 3
    """The denoiser converts masks of two dimensions and passes masks of three unchanged."""

    def unsqueeze(self, dim: int) -> "MaskWithBlocks":
        """Return itself: the mask has its dimensions already."""
        return self


class PerBlockAttention:
    """A processor for the Attention class of diffusers; ``name`` is the layer's name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | MaskWithBlocks | None = None,
        blocks: Mapping[str, Attention] | None = None,
    ) -> Tensor:
        """Return the layer's output for ``hidden_states``, both (batch, query, width)."""
        added: Any = attention_mask
        if isinstance(added, MaskWithBlocks):
            added, blocks = added.mask, added.blocks
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if encoder_hidden_states is not None and attn.norm_cross:
            context = attn.norm_encoder_hidden_states(context)
        q, k, v = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        q, k = _normed(attn.norm_q, q, attn.heads), _normed(attn.norm_k, k, attn.heads)
        q, k, v = (part.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for part in (q, k, v))
        if added is not None:
            added = attn.prepare_attention_mask(added, context.shape[1], len(context))
            added = added.view(len(context), attn.heads, -1, added.shape[-1])
        answer = functional.scaled_dot_product_attention(q, k, v, attn_mask=added)
        answer = answer.transpose(1, 2).flatten(2)
        if blocks is not None and self.name in blocks:
            answer = blocks[self.name](hidden_states, answer).to(answer)
        return attn.to_out[1](attn.to_out[0](answer)) / attn.rescale_output_factor


def _normed(norm: nn.Module | None, values: Tensor, heads: int) -> Tensor:
    """Normalise queries or keys: over all heads, or over each, as the norm's weights are wide."""
    if norm is None:
        return values
    weight: Any = norm.weight
    if len(weight) == values.shape[-1]:
        return norm(values)
    return norm(values.unflatten(-1, (heads, -1))).flatten(-2)
