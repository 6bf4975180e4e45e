"""`closed_form`: ridge regression onto the teacher's tokens, without gradients.

    y = W x + b,   W = (X'X + ridge trace(X'X)/d I)^-1 X'Y       X, Y centred over all tokens of the captions

x is the input of the connector's last linear layer, y the teacher's tokens for the same characters. The two
tokenizers cut a caption differently, so a token's target is the mean of the teacher's tokens, weighted by the
number of shared characters. The target of the first special token is the teacher's first special token; that
of later ones is the mean of the teacher's tokens after the caption, padding included. The pooled vector is
solved in the same way.

This is a baseline for the other objectives, and can be a start for them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Num
from pydantic import Field
from torch import Tensor, nn

from lavibridge.alignment.base import AlignmentSolver, CaptionBatches
from lavibridge.bridge import Bridge
from lavibridge.connectors.base import Connector
from lavibridge.core.contracts import Conditioning, TextFeatures
from lavibridge.vision.base import VisionModel

Span = tuple[int, int]


class ClosedForm(AlignmentSolver):
    """Solves the last linear layer of a connector that maps every token separately."""

    class Config(AlignmentSolver.Config):
        """Options of `match: closed_form`."""

        ridge: float = Field(default=1e-3, gt=0)
        """Weight of the penalty, relative to the mean variance of the layer's inputs."""

    config: Config

    @classmethod
    def refusal(
        cls, connector: type[Connector], config: Connector.Config, vision: type[VisionModel]
    ) -> str | None:
        """Refuse connectors that do not end in a linear layer on every token."""
        if connector.output_layer is Connector.output_layer:
            return (
                "it solves the last linear layer of a connector that maps every token separately, and this "
                "connector does not: use 'linear', 'mlp' or 'lavi'"
            )
        return None

    @torch.no_grad()
    def fit(self, student: Bridge, teacher: Bridge, batches: CaptionBatches) -> None:
        """Solve for the connector's output layer, then for the layer that makes the pooled vector."""
        layer = student.connector.output_layer
        assert layer is not None  # refusal() ensures it
        tokens = Regression()
        for captions, features, teacher_features in batches():
            t = _middle_time(teacher.vision, len(captions))
            target = teacher.connector(teacher_features, t)
            with _inputs_of(layer) as seen:
                student.connector(features, t)
            x = seen[0] if seen[0].dim() == 2 else seen[0][features.mask]
            y, is_matched = matched_tokens(student, teacher, captions, features, target)
            tokens.add(x[is_matched], y[is_matched])
        tokens.solve(layer, self.config.ridge)
        if student.connector.pool is not None:
            self._fit_pooled(student, teacher, student.connector.pool.out, batches)

    def _fit_pooled(
        self, student: Bridge, teacher: Bridge, layer: nn.Linear, batches: CaptionBatches
    ) -> None:
        pooled = Regression()
        for captions, features, teacher_features in batches():
            t = _middle_time(teacher.vision, len(captions))
            target = teacher.connector(teacher_features, t).pooled
            with _inputs_of(layer) as seen:
                student.connector(features, t)
            if target is not None:
                pooled.add(seen[0], target)
        pooled.solve(layer, self.config.ridge)


@dataclass
class Regression:
    """Accumulates the sums that ridge regression needs, in float64."""

    count: int = 0
    sums: tuple[Tensor, Tensor] | None = None
    products: tuple[Tensor, Tensor] | None = None
    """X'X and X'Y."""

    def add(self, x: Float[Tensor, "row input"], y: Float[Tensor, "row output"]) -> None:
        """Add rows of inputs and outputs."""
        x, y = x.double(), y.double()
        sums, products = (x.sum(0), y.sum(0)), (x.T @ x, x.T @ y)
        if self.sums is not None and self.products is not None:
            sums = (self.sums[0] + sums[0], self.sums[1] + sums[1])
            products = (self.products[0] + products[0], self.products[1] + products[1])
        self.count, self.sums, self.products = self.count + len(x), sums, products

    def solve(self, layer: nn.Linear, ridge: float) -> None:
        """Set a layer's weight and bias to the solution."""
        assert self.sums is not None, "a regression needs rows"
        assert self.products is not None
        mean_x, mean_y = (each / self.count for each in self.sums)
        covariance = self.products[0] / self.count - torch.outer(mean_x, mean_x)
        crossed = self.products[1] / self.count - torch.outer(mean_x, mean_y)
        penalty = ridge * covariance.diagonal().mean().clamp_min(1e-12)
        regularised = covariance + penalty * torch.eye(
            len(mean_x), dtype=covariance.dtype, device=mean_x.device
        )
        weight = torch.linalg.solve(regularised, crossed)
        layer.weight.copy_(weight.T)
        layer.bias.copy_(mean_y - mean_x @ weight)


def _middle_time(vision: VisionModel, count: int) -> Num[Tensor, " caption"]:
    """The middle time of the schedule, for teachers whose conditioning depends on the timestep."""
    return vision.times[len(vision.times) // 2].expand(count)


def matched_tokens(
    student: Bridge,
    teacher: Bridge,
    captions: Sequence[str],
    features: TextFeatures,
    target: Conditioning,
) -> tuple[Float[Tensor, "token context"], Tensor]:
    """Return a target for every real token of the student, and whether the token has one.

    The tokens of all captions are concatenated, in the order in which the mask selects them.
    """
    targets, is_matched = [], []
    for row, (caption, text) in enumerate(zip(captions, student.language.revise(captions), strict=True)):
        real = int(features.mask[row].sum())
        weights = span_weights(student.language.spans(text)[:real], teacher.language.spans(caption))
        own = target.tokens[row][target.mask[row]]
        weights = weights[:, : len(own)].to(own)
        totals = weights.sum(1, keepdim=True)
        targets.append(weights @ own / totals.clamp_min(1e-12))
        is_matched.append(totals[:, 0] > 0)
    return torch.cat(targets), torch.cat(is_matched)


def span_weights(spans: Sequence[Span], teacher_spans: Sequence[Span]) -> Float[Tensor, "token other"]:
    """Count the characters that each token shares with each of the teacher's tokens.

    Special tokens have no characters. The first one matches the teacher's first special token, later ones
    match all of the teacher's tokens after the caption.
    """
    weights = torch.zeros(len(spans), len(teacher_spans))
    is_special = [end <= start for start, end in teacher_spans]
    last = max((place for place, special in enumerate(is_special) if not special), default=-1)
    for place, (start, end) in enumerate(spans):
        if end > start:
            for other, (begin, stop) in enumerate(teacher_spans):
                weights[place, other] = max(0, min(end, stop) - max(start, begin))
        elif place == 0 and is_special[0]:
            weights[place, 0] = 1
        else:
            weights[place, last + 1 :] = 1
    return weights


@contextmanager
def _inputs_of(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Record the inputs of a layer."""
    seen: list[Tensor] = []

    def record(module: nn.Module, args: tuple[Any, ...]) -> None:
        seen.append(args[0])

    hook = layer.register_forward_pre_hook(record)
    try:
        yield seen
    finally:
        hook.remove()
