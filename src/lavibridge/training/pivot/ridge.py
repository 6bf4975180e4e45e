"""Ridge regression of the slots on pooled features: what a language model offers, before its half learns.

    x = [ sum_t w(p, t) f_t / sum_t w(p, t) ]    for PLACES places p, spread evenly over a caption's tokens
    w(p, t) = max(0, 1 - |p - position of t|)    positions run from 0 to PLACES - 1
    Z' = W x + b                                 ridge regression; a tenth of the captions choose its penalty

f_t is the feature of one token as the half reads it. The places keep the order of a caption's words, which a
mean over all tokens loses. The dual form needs one row and column for each caption, however wide x is
(Hoerl and Kennard 1970, Technometrics 12; Saunders, Gammerman and Vovk 1998, ICML).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lavibridge.alignment.parts.variance import unexplained
from lavibridge.connectors.pivot import LanguageHalf
from lavibridge.core.contracts import TextFeatures
from lavibridge.training.pivot.regression import LanguageSide, SlotTargets, caption_batches

PLACES = 4
"""Places that a caption's tokens are pooled at."""
MOST = 3000
"""Most captions to learn from, as the dual form grows with their square."""
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
"""Penalties to choose from, relative to the mean squared norm of x."""
Rows = Float[Tensor, "caption _"]


@torch.no_grad()
def ridge_fvu(side: LanguageSide, targets: SlotTargets) -> float:
    """Return the fraction of the variance of held-out captions' slots that pooled features do not explain."""
    learned, held_out = targets.captions.training[:MOST], targets.captions.held_out
    x, x_held_out = (_pooled_captions(side, captions) for captions in (learned, held_out))
    y, y_held_out = (_slots(targets, captions) for captions in (learned, held_out))
    kept = max(1, len(learned) - max(1, len(learned) // 10))
    trials = ridge_predictions(x[:kept], y[:kept], x[kept:], PENALTIES)
    fvus = [float(unexplained(trial, y[kept:], over=(0,))) for trial in trials]
    penalty = PENALTIES[fvus.index(min(fvus))]
    (predicted,) = ridge_predictions(x, y, x_held_out, (penalty,))
    return float(unexplained(predicted, y_held_out, over=(0,)))


def pool_at_places(half: LanguageHalf, features: TextFeatures) -> Float[Tensor, "batch _"]:
    """Return one row for each prompt: the features around each place, one place after the other."""
    read = half.read(features.hidden)
    order = features.mask.cumsum(dim=1) - 1
    last = order.amax(dim=1, keepdim=True).clamp_min(1)
    position = order / last * (PLACES - 1)
    places = torch.arange(PLACES, device=read.device)
    weights = (1 - (places[None, :, None] - position[:, None]).abs()).clamp_min(0) * features.mask[:, None]
    pooled = weights @ read / weights.sum(dim=2, keepdim=True).clamp_min(1e-6)
    return pooled.flatten(1)


def _pooled_captions(side: LanguageSide, captions: Sequence[str]) -> Rows:
    batches = caption_batches(captions)
    return torch.cat([pool_at_places(side.half, side.read(batch)).cpu() for batch in batches]).double()


def _slots(targets: SlotTargets, captions: Sequence[str]) -> Rows:
    return torch.cat([targets.slots[caption] for caption in captions]).flatten(1).double()


def ridge_predictions(
    x: Float[Tensor, "caption width"],
    y: Float[Tensor, "caption output"],
    x_new: Float[Tensor, "new width"],
    penalties: Sequence[float],
) -> list[Float[Tensor, "new output"]]:
    """Return the predictions for new rows with each penalty; every column of x gets the same weight."""
    mean, spread = x.mean(0), x.std(0, correction=0).clamp_min(1e-9)
    x, x_new = (x - mean) / spread, (x_new - mean) / spread
    gram, crossed = x @ x.T, x_new @ x.T
    scale = gram.diagonal().mean().clamp_min(1e-12)
    found = []
    for penalty in penalties:
        factor = torch.linalg.cholesky(gram + penalty * scale * torch.eye(len(x), dtype=x.dtype))
        found.append(y.mean(0) + crossed @ torch.cholesky_solve(y - y.mean(0), factor))
    return found
