"""Muon: what its iteration makes of a matrix, and that a network learns by it and goes on exactly."""

from pathlib import Path

import pytest
import torch
from torch import nn

from lavibridge.optimizers.muon import Muon, orthogonalize
from lavibridge.zoo.pretraining import Pretraining, run_pretraining


@pytest.mark.parametrize("shape", [(24, 60), (60, 24), (32, 32)])
def test_singular_values_come_near_one_and_directions_stay(shape: tuple[int, int]) -> None:
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    values = values.clamp(min=0.02 * values.max())  # what is far smaller takes more than five iterations
    found = left.T @ orthogonalize(left @ values.diag() @ right) @ right.T
    assert 0.5 < float(found.diagonal().min()) <= float(found.diagonal().max()) < 1.3
    assert (found - found.diagonal().diag()).abs().max() < 1e-4


class Line(Pretraining):
    """A matrix and a bias that are to become given ones."""

    name, steps, batch, lr, muon_lr = "line", 300, 1, 1e-2, 5e-2

    def __init__(self, stops_at: int = -1) -> None:
        self.stops_at = stops_at
        torch.manual_seed(0)
        self.networks = nn.ModuleDict({"line": nn.Linear(6, 4)})
        self.wanted = torch.randn(4, 6), torch.randn(4)

    def matrices(self) -> list[nn.Parameter]:
        return [self.networks["line"].weight]  # type: ignore[list-item]

    def loss(self, step: int) -> torch.Tensor:
        if step == self.stops_at:
            raise KeyboardInterrupt
        given = torch.randn(32, 6)
        return (self.networks["line"](given) - nn.functional.linear(given, *self.wanted)).square().mean()

    def scores(self) -> dict[str, float]:
        return {"error": self.loss(0).item()}

    def export(self, folder: Path) -> None:
        """Nothing is exported."""


def test_two_optimisers_learn_together_and_go_on_exactly(tmp_path: Path) -> None:
    whole, halves, rest = Line(), Line(stops_at=120), Line()
    before = whole.scores()["error"]
    assert run_pretraining(whole, tmp_path / "whole")["error"] < 0.02 * before
    with pytest.raises(KeyboardInterrupt):
        run_pretraining(halves, tmp_path / "halves")
    run_pretraining(rest, tmp_path / "halves")
    for one, other in zip(whole.networks.parameters(), rest.networks.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_matrix_without_gradient_stays() -> None:
    matrix = nn.Parameter(torch.ones(2, 3))
    Muon([matrix], lr=0.1).step()
    assert torch.equal(matrix, torch.ones(2, 3))


def test_what_is_no_matrix_is_trained_as_by_adamw() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Parameter(torch.randn(7)), nn.Parameter(torch.zeros(7))
    theirs.data.copy_(ours.data)
    optimizers = (
        Muon([ours], lr=0.1, weight_decay=0.03),
        torch.optim.AdamW([theirs], lr=0.1, betas=(0.9, 0.98), weight_decay=0.03),
    )
    for _ in range(20):
        ours.grad = torch.randn(7)
        theirs.grad = ours.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(ours, theirs)
