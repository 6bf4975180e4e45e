"""The fraction of variance unexplained (fvu), which every objective reports and minimises."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lavibridge.core.contracts import Conditioning

SMALLEST_VARIANCE = 1e-12
"""Below this variance, a target counts as the same for every caption."""


def unexplained(
    output: Float[Tensor, "..."], target: Float[Tensor, "..."], over: tuple[int, ...]
) -> Float[Tensor, ""]:
    """E|output - target|^2 / Var[target], where the mean of ``target`` is over the axes ``over``.

    It is 0 if the output equals the target, and 1 if it equals the target's mean.
    """
    variance = (target - target.mean(dim=over, keepdim=True)).square().mean()
    return (output - target).square().mean() / variance.clamp_min(SMALLEST_VARIANCE)


def unexplained_within(
    output: Float[Tensor, "row ..."], target: Float[Tensor, "row ..."], groups: Int[Tensor, " row"]
) -> Float[Tensor, ""]:
    """The same, but each group of rows has its own mean.

    Rows of one group share their noised latents and differ only in their captions, so the variance measures
    the effect of captions and not that of latents. A group of one row has no variance and does not count.
    """
    members, index, counts = groups.to(target.device).unique(return_inverse=True, return_counts=True)
    sums = target.new_zeros(len(members), *target.shape[1:]).index_add(0, index, target)
    means = sums / counts.reshape(-1, *[1] * (target.dim() - 1))
    # The mean of k rows is nearer to them than the true mean is: k / (k - 1) corrects the variance.
    several = counts > 1
    correction = torch.where(several, counts / (counts - 1).clamp_min(1), 1.0)[index]
    spread = (target - means[index]).square().flatten(1).mean(dim=1) * correction
    kept = several[index]
    variance = spread[kept].mean() if bool(kept.any()) else spread.mean()
    return (output - target).square().mean() / variance.clamp_min(SMALLEST_VARIANCE)


def mean_token(conditioning: Conditioning) -> Float[Tensor, "batch context"]:
    """The mean of each prompt's real tokens."""
    real = conditioning.mask[..., None].to(conditioning.tokens)
    return (conditioning.tokens * real).sum(1) / real.sum(1).clamp_min(1)
