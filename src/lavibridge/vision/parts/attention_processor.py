"""An attention processor that lets a per-block connector replace a layer's attention or its tokens.

    q = W_q x,  k = W_k y,  v = W_v y,   answer = softmax(q k^T / sqrt(d)) v      y may be the connector's
    W_o attend(x, answer)                                                   the connector's `attend`

The connector's functions and tokens are arguments of each call and stored nowhere. Gradient checkpointing,
which repeats the call, therefore sees them again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lavibridge.core.contracts import Attention, BlockSpec, BlockTokens, Conditioning
from lavibridge.vision.parts.padding import padding_bias, padding_mask


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
    blocks: Mapping[str, Attention | BlockTokens]
    ndim: int = 3
    """The denoiser converts masks of two dimensions and passes masks of three unchanged."""

    def unsqueeze(self, dim: int) -> "MaskWithBlocks":
        """Return itself: the mask has its dimensions already."""
        return self


def mask_with_blocks(conditioning: Conditioning, dtype: torch.dtype) -> Tensor | MaskWithBlocks | None:
    """Return the mask for a denoiser whose blocks pass their attention layers no other argument."""
    mask = padding_mask(conditioning.mask)
    if not conditioning.blocks:
        return mask
    added = None if mask is None else padding_bias(mask, dtype)
    return MaskWithBlocks(mask=added, blocks=conditioning.blocks)


class PerBlockAttention:
    """A processor for the Attention class of diffusers."""

    def __init__(self, name: str, project: Callable[[Tensor], Tensor]) -> None:
        """``name`` is the layer's name; ``project`` is how the denoiser projects tokens before its layers."""
        self.name, self.project = name, project

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | MaskWithBlocks | None = None,
        blocks: Mapping[str, Attention | BlockTokens] | None = None,
    ) -> Tensor:
        """Return the layer's output for ``hidden_states``, both (batch, query, width)."""
        added: Any = attention_mask
        if isinstance(added, MaskWithBlocks):
            added, blocks = added.mask, added.blocks
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        replacement = None if blocks is None else blocks.get(self.name)
        if isinstance(replacement, BlockTokens):
            context, replacement = self.project(replacement.tokens.to(context)), None
        if encoder_hidden_states is not None and attn.norm_cross:
            context = attn.norm_encoder_hidden_states(context)
        q, k, v = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        q, k = normed_heads(attn.norm_q, q, attn.heads), normed_heads(attn.norm_k, k, attn.heads)
        q, k, v = (part.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for part in (q, k, v))
        if added is not None:
            added = attn.prepare_attention_mask(added, context.shape[1], len(context))
            added = added.view(len(context), attn.heads, -1, added.shape[-1])
        answer = functional.scaled_dot_product_attention(q, k, v, attn_mask=added)
        answer = answer.transpose(1, 2).flatten(2)
        if replacement is not None:
            answer = replacement(hidden_states, answer).to(answer)
        return attn.to_out[1](attn.to_out[0](answer)) / attn.rescale_output_factor


def normed_heads(norm: nn.Module | None, values: Tensor, heads: int) -> Tensor:
    """Normalise queries or keys: over all heads, or over each, as the norm's weights are wide."""
    if norm is None:
        return values
    weight: Any = norm.weight
    if len(weight) == values.shape[-1]:
        return norm(values)
    return norm(values.unflatten(-1, (heads, -1))).flatten(-2)


def context_of_call(attn: Any, named: Mapping[str, Any]) -> Tensor | None:
    """Return the tokens that a layer reads in a call with these arguments; None for self-attention."""
    context: Tensor | None = named.get("encoder_hidden_states")
    mask, processor = named.get("attention_mask"), attn.processor
    blocks = mask.blocks if isinstance(mask, MaskWithBlocks) else named.get("blocks")
    if context is None or blocks is None or not isinstance(processor, PerBlockAttention):
        return context
    own = blocks.get(processor.name)
    return processor.project(own.tokens.to(context)) if isinstance(own, BlockTokens) else context
