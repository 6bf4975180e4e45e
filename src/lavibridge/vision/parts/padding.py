"""Handles padding: masks it if the denoiser takes a mask, removes it if not.

    tokens [a b . .]        length 2: [a b], [f g]     one call of the denoiser per length,
           [c d e .]   ->   length 3: [c d e]          results in the order of the samples
           [. f g .]

In both cases masked tokens never change a prediction.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor

from lavibridge.core.contracts import Conditioning

_HIDDEN = -10_000.0
"""Added to the attention scores of padding, as in the denoisers of diffusers."""

Latents = Float[Tensor, "batch channel h w"]
Times = Num[Tensor, " batch"]


def padding_mask(mask: Bool[Tensor, "batch token"]) -> Bool[Tensor, "batch token"] | None:
    """Return the mask, or None if it hides nothing, which makes attention faster."""
    return None if bool(mask.all()) else mask


def padding_bias(mask: Bool[Tensor, "batch token"], dtype: torch.dtype) -> Float[Tensor, "batch 1 token"]:
    """Return the bias of the attention scores: 0 for real tokens, -10,000 for padding."""
    return ((1 - mask.to(dtype)) * _HIDDEN)[:, None]


def predict_without_padding(
    call: Callable[[Latents, Times, Conditioning], Latents],
    noisy: Latents,
    t: Times,
    conditioning: Conditioning,
) -> Latents:
    """Run ``call`` on real tokens only, once per prompt length, and restore the order of the samples."""
    if bool(conditioning.mask.all()):
        return call(noisy, t, conditioning)
    rows = rows_by_length(conditioning.mask)
    answers: list[Tensor] = []
    for chosen in rows:
        mask = conditioning.mask[chosen]
        length = int(mask[0].sum())
        tokens = conditioning.tokens[chosen][mask]
        part = replace(
            conditioning,
            tokens=tokens.reshape(len(chosen), length, conditioning.tokens.shape[2]),
            mask=torch.ones(len(chosen), length, dtype=torch.bool, device=mask.device),
            pooled=None if conditioning.pooled is None else conditioning.pooled[chosen],
        )
        answers.append(call(noisy[chosen], t[chosen], part))
    return torch.cat(answers)[torch.cat(rows).argsort()]


def rows_by_length(mask: Bool[Tensor, "batch token"]) -> list[Int[Tensor, " row"]]:
    """Return the rows of each length, the shortest first: those that share a call without padding."""
    lengths = mask.sum(dim=1)
    return [(lengths == length).nonzero().flatten() for length in lengths.unique()]
