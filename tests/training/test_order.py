"""The order and the chances of training: functions of (seed, position), even and independent."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lavibridge.core.seeds import mix_seeds
from lavibridge.training.data.order import ShuffledOrder, rng_for_visit

SHAPE = (4, 2, 2)


@settings(deadline=None)
@given(count=st.integers(1, 50), seed=st.integers(0, 2**31), epoch=st.integers(0, 5))
def test_an_epoch_visits_everything_once(count: int, seed: int, epoch: int) -> None:
    order = ShuffledOrder(count, seed)
    visited = [order.index(epoch * count + place) for place in range(count)]
    assert sorted(visited) == list(range(count))


def test_any_position_can_be_asked_for_at_any_time() -> None:
    forward, backward = ShuffledOrder(7, 3), ShuffledOrder(7, 3)
    positions = range(40)
    assert [forward.index(p) for p in positions] == [backward.index(p) for p in reversed(positions)][::-1]


def test_epochs_and_seeds_differ() -> None:
    order = ShuffledOrder(100, 0)
    first = [order.index(p) for p in range(100)]
    assert first != [order.index(p) for p in range(100, 200)]
    assert first != [ShuffledOrder(100, 1).index(p) for p in range(100)]


def test_a_chance_belongs_to_its_position_alone() -> None:
    torch.manual_seed(1)
    first = rng_for_visit(5, 17, SHAPE)
    torch.manual_seed(2)
    second = rng_for_visit(5, 17, SHAPE)
    assert (first.caption, first.drop, first.time) == (second.caption, second.drop, second.time)
    assert torch.equal(first.noise, second.noise)
    assert torch.equal(first.latent, second.latent)
    assert not torch.equal(first.noise, first.latent)
    assert not torch.equal(first.noise, rng_for_visit(5, 18, SHAPE).noise)
    assert not torch.equal(first.noise, rng_for_visit(6, 17, SHAPE).noise)


def test_chances_are_even_and_standard_normal() -> None:
    many = [rng_for_visit(0, position, SHAPE) for position in range(2000)]
    for values in ([one.time for one in many], [one.drop for one in many]):
        assert abs(sum(values) / 2000 - 0.5) < 0.03
        assert 0 <= min(values) < 0.01
        assert 0.99 < max(values) < 1
    noise = torch.stack([one.noise for one in many])
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 1) < 0.02


def test_mixed_seeds_do_not_meet() -> None:
    seeds = {mix_seeds(seed, step, turn) for seed in range(10) for step in range(50) for turn in range(4)}
    assert len(seeds) == 2000
    assert mix_seeds(1, 23) != mix_seeds(12, 3)
    assert max(seeds) < 2**63
