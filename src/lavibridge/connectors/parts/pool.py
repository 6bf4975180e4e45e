"""Pools tokens into one vector, for vision models that also take a pooled one (SDXL, SD3, FLUX).

    pooled = W attention(mean of real tokens -> real tokens)

After the attention pool of CLIP's image tower (Radford et al. 2021, arXiv 2103.00020), without its positions.
"""

from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from lavibridge.connectors.parts.blocks import head_count


class AttentionPool(nn.Module):
    """Pools tokens into one vector; masks padding."""

    def __init__(self, width: int, pooled: int) -> None:
        super().__init__()
        self.heads = head_count(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, pooled)

    def forward(
        self, tokens: Float[Tensor, "batch token width"], mask: Bool[Tensor, "batch token"]
    ) -> Float[Tensor, "batch pooled"]:
        real = mask[..., None].to(tokens)
        mean = (tokens * real).sum(1, keepdim=True) / real.sum(1, keepdim=True).clamp(min=1)
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(mean), self.key(tokens), self.value(tokens))
        )
        answer = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        return self.out(answer.transpose(1, 2).flatten(2)[:, 0])
