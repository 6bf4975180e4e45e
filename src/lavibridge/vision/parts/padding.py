"""Padding: hidden by a mask where the denoiser takes one, cut off where it takes none.

    tokens [a b . .]        length 2: [a b], [f g]     one call of the denoiser per length,
           [c d e .]   ->   length 3: [c d e]          then the samples in their order again
           [. f g .]

Either way the tokens that a mask hides never change a prediction.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor

from lavibridge.core.contracts import Conditioning

HIDDEN = -10_000.0
"""Added to the scores of tokens that are padding, as the library's denoisers do."""

Latents = Float[Tensor, "batch channel h w"]
Times = Num[Tensor, " batch"]


def hiding(mask: Bool[Tensor, "batch token"]) -> Bool[Tensor, "batch token"] | None:
    """The mask, or None where it hides nothing: attention is faster so."""
    return None if bool(mask.all()) else mask


def scores(mask: Bool[Tensor, "batch token"], dtype: torch.dtype) -> Float[Tensor, "batch 1 token"]:
    """What is added to the attention's scores: 0 for real tokens."""
    return ((1 - mask.to(dtype)) * HIDDEN)[:, None]


def without_padding(
    call: Callable[[Latents, Times, Conditioning], Latents],
    noisy: Latents,
    t: Times,
    conditioning: Conditioning,
) -> Latents:
    """What ``call`` answers where it is given real tokens only, samples of one length at a time."""
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
