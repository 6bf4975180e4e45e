"""First weights to which the features of captions look uncorrelated and equally large.

    y = W' x + b',   W' = W M / s,   b' = b - W' m      m, s: each feature's mean and spread over tokens
    M = (Z^T Z / n + floor)^-1/2,   Z = (x - m) / s     so that Z M has the identity for its covariance

A causal model's features lie almost on a line: what a word changes is a small part of them, and random first
weights pass on the rest. Folded into a layer's weights, the layer stays what it was, only begun elsewhere
(after Kessy et al. 2018, arXiv 1512.00809, ZCA-cor whitening).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

SPREAD_FLOOR = 0.02
"""Of the features' root mean square."""
VARIANCE_FLOOR = 0.005
"""Added before dividing, so that directions in which captions hardly differ are not blown up."""


@dataclass(frozen=True, kw_only=True)
class Whitening:
    """What makes features uncorrelated."""

    mean: Float[Tensor, " width"]
    spread: Float[Tensor, " width"]
    matrix: Float[Tensor, "width width"]
    """For features that are centred and divided by their spread."""


@torch.no_grad()
def whitening(x: Float[Tensor, "token width"]) -> Whitening:
    """The whitening of at least two tokens' features."""
    mean = x.mean(0)
    spread = x.std(0) + SPREAD_FLOOR * x.square().mean().sqrt()
    z = (x - mean) / spread
    values, directions = torch.linalg.eigh(z.T @ z / len(z))
    shrunk = (values.clamp(min=0) + VARIANCE_FLOOR).rsqrt()
    return Whitening(mean=mean, spread=spread, matrix=(directions * shrunk) @ directions.T)


@torch.no_grad()
def fold_whitening(layer: nn.Linear, found: Whitening) -> None:
    """Have a layer whiten before its own weights, by changing them; it has to have a bias."""
    weight = layer.weight @ found.matrix / found.spread
    layer.bias.sub_(weight @ found.mean)
    layer.weight.copy_(weight)
