"""Blocks in which a fixed number of latents attends to a text of any length.

    q = N1(L, e),  kv = [q ; N2(X, e)]                 the latents attend to themselves and to the text
    L <- L + g_a MHA(q, kv, kv)
    L <- L + g_m MLP(N3(L, e))                         MLP(x) = W2 relu(W1 x)^2, four times as wide inside

N is a layer norm, or one with shift and scale from the time e. The gates g are 1 except in
`GatedPerceiverBlock`. Names and shapes of the weights are those of ELLA's published file.

Jaegle et al. 2021 (Perceiver), arXiv 2103.03206; Hu et al. 2024 (ELLA), arXiv 2403.05135.
"""

import math
from collections import OrderedDict

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor, nn
from torch.nn import functional

Latents = Float[Tensor, "batch latent width"]
Text = Float[Tensor, "batch token width"]
Mask = Bool[Tensor, "batch token"]
Time = Float[Tensor, "batch 1 time_width"]


class _SquaredRelu(nn.Module):
    """relu(x)^2 (So et al. 2021, arXiv 2109.08668)."""

    def forward(self, x: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        return functional.relu(x).square()


class TimeEmbedding(nn.Module):
    """Encodes a time in 0..1000 by cosines and sines, then by two linear layers."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.channels = channels
        self.linear_1 = nn.Linear(channels, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, t: Num[Tensor, " batch"]) -> Time:
        half = self.channels // 2
        steps = torch.arange(half, dtype=torch.float32, device=t.device)
        angles = t.float()[:, None] * torch.exp(-math.log(10_000) * steps / half)
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1)
        return self.linear_2(functional.silu(self.linear_1(waves)))[:, None]


class _PlainNorm(nn.LayerNorm):
    """A layer norm that ignores the time."""

    def forward(self, x: Text, time: Time | None) -> Text:  # type: ignore[override]
        return super().forward(x)


class _TimeNorm(nn.Module):
    """A layer norm with shift and scale from the time; zero-initialised, so it starts as a plain norm."""

    def __init__(self, width: int, time_width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(time_width, 2 * width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Text, time: Time) -> Text:
        shift, scale = self.linear(functional.silu(time)).chunk(2, dim=-1)
        return functional.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


class PerceiverBlock(nn.Module):
    """Latents attend to themselves and to the text; ``time_width`` None builds a block without time."""

    def __init__(self, width: int, heads: int, time_width: int | None = None) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=nn.Linear(width, 4 * width), act=_SquaredRelu(), c_proj=nn.Linear(4 * width, width)
            )
        )
        self.ln_1, self.ln_2, self.ln_ff = (
            _PlainNorm(width) if time_width is None else _TimeNorm(width, time_width) for _ in range(3)
        )

    def forward(self, latents: Latents, text: Text, mask: Mask, time: Time | None) -> Latents:
        latents = latents + self.attended(latents, text, mask, time)
        return latents + self.mlp(self.ln_ff(latents, time))

    def attended(self, latents: Latents, text: Text, mask: Mask, time: Time | None) -> Latents:
        """Return the attention output of the latents."""
        asking = self.ln_1(latents, time)
        read = torch.cat([asking, self.ln_2(text, time)], dim=1)
        hidden = None
        if not bool(mask.all()):
            hidden = torch.cat([mask.new_zeros(latents.shape[:2]), ~mask], dim=1)
        return self.attn(asking, read, read, key_padding_mask=hidden, need_weights=False)[0]


class GatedPerceiverBlock(PerceiverBlock):
    """Gates both parts by the time; the gates start at zero."""

    def __init__(self, width: int, heads: int, time_width: int) -> None:
        super().__init__(width, heads, time_width)
        self.gate_attn, self.gate_mlp = (nn.Linear(time_width, width) for _ in range(2))
        for gate in (self.gate_attn, self.gate_mlp):
            nn.init.zeros_(gate.weight)
            nn.init.zeros_(gate.bias)

    def forward(self, latents: Latents, text: Text, mask: Mask, time: Time) -> Latents:  # type: ignore[override]
        condition = functional.silu(time)
        latents = latents + self.gate_attn(condition) * self.attended(latents, text, mask, time)
        return latents + self.gate_mlp(condition) * self.mlp(self.ln_ff(latents, time))


def perceiver_latents(count: int, width: int) -> nn.Parameter:
    """Return new latents, drawn from N(0, 1 / width)."""
    return nn.Parameter(torch.randn(count, width) / math.sqrt(width))
