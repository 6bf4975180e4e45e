"""The fraction of variance unexplained (fvu), which every objective reports and minimises."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lavibridge.core.contracts import Conditioning

SMALLEST_VARIANCE = 1e-12
"""Below it a target counts as the same for every caption."""


def unexplained(
    output: Float[Tensor, "..."], target: Float[Tensor, "..."], over: tuple[int, ...]
) -> Float[Tensor, ""]:
    """E|output - target|^2 / Var[target], with the mean of ``target`` taken over the axes ``over``.

    0 where the output is the target, 1 where it is the target's mean. Computed in float32.
    """
    output, target = output.float(), target.float()
    variance = (target - target.mean(dim=over, keepdim=True)).square().mean()
    return (output - target).square().mean() / variance.clamp_min(SMALLEST_VARIANCE)


def unexplained_within(
    output: Float[Tensor, "row ..."], target: Float[Tensor, "row ..."], groups: Int[Tensor, " row"]
) -> Float[Tensor, ""]:
    """The same, with a mean of its own for each group of rows.

    Rows of one group share their noised latents, so that only captions tell them apart: the variance counts
    what the captions change and leaves out what the latents change. A group of one row has no variance.
    """
    output, target = output.float(), target.float()
    members, index, counts = groups.to(target.device).unique(return_inverse=True, return_counts=True)
    sums = target.new_zeros(len(members), *target.shape[1:]).index_add(0, index, target)
    means = sums / counts.reshape(-1, *[1] * (target.dim() - 1))
    # A mean of k rows lies nearer to them than the true mean does: k / (k - 1) corrects it.
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
