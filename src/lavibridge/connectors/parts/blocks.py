"""Transformer blocks that several connectors share.

TransformerBlock    x + Attention(LN(x)),  then  x + MLP(LN(x))        every token attends to every real token
"""

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

Tokens = Float[Tensor, "batch token width"]
Mask = Bool[Tensor, "batch token"]
_HEAD_WIDTH = 64


def head_count(width: int) -> int:
    """Return the largest number of attention heads, each at least 64 wide, that divides a width; else 1."""
    return next(count for count in range(max(1, width // _HEAD_WIDTH), 0, -1) if width % count == 0)


class SelfAttention(nn.Module):
    """Bidirectional multi-head attention that masks padding."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tokens, mask: Mask | None = None) -> Tokens:
        """Attend; ``mask`` None means that all tokens are real."""
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        seen = None if mask is None else mask[:, None, None, :]
        answer = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return self.out(answer.transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    """Pre-norm attention and feed-forward with four times the width inside."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tokens, mask: Mask | None = None) -> Tokens:
        x = x + self.attention(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))
