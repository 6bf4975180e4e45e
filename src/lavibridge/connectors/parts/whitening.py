"""Initialises first weights so that the features of captions are uncorrelated and of equal variance to them.

    y = W' x + b',   W' = W M / s,   b' = b - W' m      m, s: each feature's mean and spread over tokens
    M = (Z^T Z / n + floor)^-1/2,   Z = (x - m) / s     so that Z M has the identity as its covariance

The features of a causal model lie almost on a line: a word changes only a small part of them, and random
first weights pass on the rest. The whitening is folded into a layer's weights, so the layer keeps its form
and only starts elsewhere (after Kessy et al. 2018, arXiv 1512.00809, ZCA-cor whitening).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

_SPREAD_FLOOR = 0.02
"""Fraction of the features' root mean square that is added to every spread."""
_VARIANCE_FLOOR = 0.005
"""Added before the division, so that directions with hardly any variance are not amplified."""


@dataclass(frozen=True, kw_only=True)
class Whitening:
    """The transform that makes features uncorrelated."""

    mean: Float[Tensor, " width"]
    spread: Float[Tensor, " width"]
    matrix: Float[Tensor, "width width"]
    """Applies to features that are centred and divided by their spread."""


@torch.no_grad()
def compute_whitening(x: Float[Tensor, "token width"]) -> Whitening:
    """Return the whitening of the features of at least two tokens."""
    mean = x.mean(0)
    spread = x.std(0) + _SPREAD_FLOOR * x.square().mean().sqrt()
    z = (x - mean) / spread
    values, directions = torch.linalg.eigh(z.T @ z / len(z))
    shrunk = (values.clamp(min=0) + _VARIANCE_FLOOR).rsqrt()
    return Whitening(mean=mean, spread=spread, matrix=(directions * shrunk) @ directions.T)


@torch.no_grad()
def fold_whitening(layer: nn.Linear, transform: Whitening) -> None:
    """Fold the whitening into a layer's weights; the layer must have a bias."""
    weight = layer.weight @ transform.matrix / transform.spread
    layer.bias.sub_(weight @ transform.mean)
    layer.weight.copy_(weight)
