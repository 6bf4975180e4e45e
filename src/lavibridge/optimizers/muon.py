"""Muon (Jordan et al. 2024): momentum with all singular values close to one, for weight matrices.

    m = 0.95 m + 0.05 g        u = orthogonal(0.95 m + 0.05 g)
    W = (1 - decay lr) W - 0.2 lr sqrt(max(rows, columns)) u

The factor gives an update the usual size of AdamW's (Liu et al. 2025, arXiv 2502.16982), so that both share a
learning rate. AdamW trains everything that is not a matrix (gains, biases, learned tokens).
`torch.optim.Muon` accepts only matrices and iterates in bfloat16, which takes 15 to 30 times as long on a CPU
without native bfloat16.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from lavibridge.optimizers.base import OptimizerFactory

_MOMENTUM, _DECAY = 0.95, 0.05
_FIRST, _SECOND, _FLOOR = 0.9, 0.98, 1e-8
"""AdamW's betas and epsilon, for weights that are not matrices."""
_ITERATIONS = 5
_LINEAR, _CUBIC, _QUINTIC = 3.4445, -4.7750, 2.0315
"""Coefficients of the odd polynomial that takes singular values in (0, 1] close to one in five applications.
"""


class Muon(Optimizer):
    """Optimises all weights of a network; takes parameter groups like any PyTorch optimiser."""

    def __init__(
        self,
        weights: Iterable[nn.Parameter] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        weight_decay: float = _DECAY,
    ) -> None:
        super().__init__(list(weights), {"lr": lr, "weight_decay": weight_decay})  # type: ignore[arg-type]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every weight that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    update = self._turned if weight.ndim == 2 else self._scaled
                    weight.add_(update(weight.grad, self.state[weight]), alpha=-group["lr"])

    def _turned(self, gradient: Tensor, state: dict[str, Any]) -> Tensor:
        """Return Muon's update of a matrix."""
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        momentum: Tensor = state["momentum"]
        momentum.lerp_(gradient, 1 - _MOMENTUM)
        return orthogonalize(gradient.lerp(momentum, _MOMENTUM)) * (0.2 * max(gradient.shape) ** 0.5)

    def _scaled(self, gradient: Tensor, state: dict[str, Any]) -> Tensor:
        """Return AdamW's update of any other weight."""
        if not state:
            state.update(mean=torch.zeros_like(gradient), square=torch.zeros_like(gradient), step=0)
        state["step"] += 1
        state["mean"].lerp_(gradient, 1 - _FIRST)
        state["square"].lerp_(gradient.square(), 1 - _SECOND)
        mean = state["mean"] / (1 - _FIRST ** state["step"])
        square = state["square"] / (1 - _SECOND ** state["step"])
        return mean / (square.sqrt() + _FLOOR)


def orthogonalize(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """Bring all singular values to between about 0.7 and 1.2, by the Newton-Schulz iteration."""
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonalize(matrix.T).T
    found = matrix / matrix.norm().clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        square = found @ found.T
        odd = torch.addmm(square, square, square, beta=_CUBIC, alpha=_QUINTIC)
        found = torch.addmm(found, odd, found, beta=_LINEAR)
    return found


class MuonFactory(OptimizerFactory):
    """Muon for every matrix, AdamW for the rest."""

    state_bytes = 4.0

    def build(self, groups: Sequence[Mapping[str, Any]], weight_decay: float) -> Optimizer:
        return Muon([dict(group) for group in groups], weight_decay=weight_decay)
