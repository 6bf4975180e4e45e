"""Padding: hidden by a mask where the denoiser takes one, cut off where it takes none.

    tokens [a b . .]        length 2: [a b], [f g]     one call of the denoiser per length,
           [c d e .]   ->   length 3: [c d e]          then the samples in their order again
           [. f g .]

Either way the tokens that a mask hides never change a prediction.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from lavibridge.core.contracts import Conditioning

_HIDDEN = -10_000.0
"""Added to the scores of tokens that are padding, as the library's denoisers do."""

Latents = Float[Tensor, "batch channel h w"]
Times = Num[Tensor, " batch"]


def padding_mask(mask: Bool[Tensor, "batch token"]) -> Bool[Tensor, "batch token"] | None:
    """The mask, or None where it hides nothing: attention is faster so."""
    return None if bool(mask.all()) else mask


def padding_bias(mask: Bool[Tensor, "batch token"], dtype: torch.dtype) -> Float[Tensor, "batch 1 token"]:
    """What is added to the attention's scores: 0 for real tokens."""
    return ((1 - mask.to(dtype)) * _HIDDEN)[:, None]


def predict_without_padding(
    call: Callable[[Latents, Times, Conditioning], Latents],
    noisy: Latents,
    t: Times,
    conditioning: Conditioning,
) -> Latents:
    """What ``call`` answers where it is given real tokens only, samples of one length at a time."""
    if bool(conditioning.mask.all()):
        return call(noisy, t, conditioning)
    lengths = conditioning.mask.sum(dim=1)
    rows: list[Tensor] = []
    answers: list[Tensor] = []
    for length in lengths.unique().tolist():
        chosen = (lengths == length).nonzero().flatten()
        mask = conditioning.mask[chosen]
        tokens = conditioning.tokens[chosen][mask]
        part = replace(
            conditioning,
            tokens=tokens.reshape(len(chosen), length, conditioning.tokens.shape[2]),
            mask=torch.ones(len(chosen), length, dtype=torch.bool, device=mask.device),
            pooled=None if conditioning.pooled is None else conditioning.pooled[chosen],
        )
        rows.append(chosen)
        answers.append(call(noisy[chosen], t[chosen], part))
    return torch.cat(answers)[torch.cat(rows).argsort()]
