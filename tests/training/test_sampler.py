"""Which picture is met in which shape: buckets, weights and mirrors, as functions of the position."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lavibridge.data.mixture import Mixture
from lavibridge.data.pictures.rejected import RejectedPictures
from lavibridge.data.world import World
from lavibridge.training.data.bucketed import Bucketed, bucket_shapes, nearest_buckets
from lavibridge.training.data.order import (
    LARGEST_ORDER_TABLE,
    ORDER_BLOCK,
    SampleOrder,
    ShuffledOrder,
    WeightedOrder,
    apportion_places,
)
from lavibridge.training.data.permutation import Permutation
from lavibridge.training.data.sampler import VisitSampler, mentions_a_side


def met(order: SampleOrder, start: int, end: int) -> list[int]:
    return [int(index) for index in order.indices(np.arange(start, end))]


@settings(deadline=None, max_examples=50)
@given(count=st.integers(1, 3000), seed=st.integers(0, 2**63))
def test_a_computed_shuffle_is_a_permutation(count: int, seed: int) -> None:
    shuffle = Permutation(count, seed)
    shuffled = shuffle.at(np.arange(count))
    assert np.array_equal(np.sort(shuffled), np.arange(count))


def test_a_computed_shuffle_looks_random_and_differs_by_seed() -> None:
    count = 100_000
    places = np.arange(count)
    first, second = (Permutation(count, seed).at(places) for seed in (0, 1))
    for shuffled in (first, second):
        assert abs(np.corrcoef(places, shuffled)[0, 1]) < 0.02
        assert abs(np.corrcoef(shuffled[:-1], shuffled[1:])[0, 1]) < 0.02
        assert abs((np.diff(shuffled) > 0).mean() - 0.5) < 0.01
    assert (first == second).sum() < 12  # one is expected by chance
    # Where a tenth goes is spread evenly over tenths: chi-square with 99 degrees, 148 at p = 0.001.
    table = np.histogram2d(places, first, bins=10)[0]
    assert ((table - count / 100) ** 2 / (count / 100)).sum() < 148


def test_a_hundred_million_samples_need_no_table() -> None:
    order = ShuffledOrder(10**8, 3)
    positions = np.array([0, 1, 99_999_999, 10**8, 10**8 + 1, 5 * 10**8])
    found = order.indices(positions)
    assert ((found >= 0) & (found < 10**8)).all()
    assert [order.index(int(position)) for position in positions] == found.tolist()
    assert len(set(met(ShuffledOrder(LARGEST_ORDER_TABLE + 1, 0), 0, 10_000))) == 10_000


def test_shapes_keep_the_area_and_the_unit() -> None:
    found = bucket_shapes((512, 512), 8, 9)
    assert (512, 512) in found
    assert len(set(found)) == 9
    for height, width in found:
        assert height % 8 == width % 8 == 0
        assert abs(height * width / 512**2 - 1) < 0.04
        assert 0.49 < width / height < 2.05
    chosen = nearest_buckets(np.array([[100, 100], [300, 100], [100, 900], [600, 500]]), found)
    assert [found[shape] for shape in chosen] == [
        (512, 512),
        found[0],
        found[-1],
        found[nearest_to(found, 5 / 6)],
    ]


def nearest_to(found: list[tuple[int, int]], ratio: float) -> int:
    return min(range(len(found)), key=lambda i: abs(np.log(found[i][1] / found[i][0] / ratio)))


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=5).filter(lambda sizes: sum(sizes) > 0),
    group=st.integers(1, 7),
    seed=st.integers(0, 100),
    epochs=st.integers(1, 4),
)
def test_passes_are_of_one_bucket_and_nobody_is_left_out(
    sizes: list[int], group: int, seed: int, epochs: int
) -> None:
    buckets = np.repeat(np.arange(len(sizes)), sizes)
    order = Bucketed(buckets, group, seed)
    passes = sum(order.passes_before(epochs))
    visits = met(order, 0, passes * group)
    for start in range(0, len(visits), group):
        assert len({int(buckets[index]) for index in visits[start : start + group]}) == 1
    counts = Counter(visits)
    for bucket, size in enumerate(sizes):
        if size:
            members = np.flatnonzero(buckets == bucket).tolist()
            assert min(counts[index] for index in members) >= epochs
            assert sum(counts[index] for index in members) - epochs * size < group
    middle = passes * group // 2
    assert met(Bucketed(buckets, group, seed), middle, passes * group) == visits[middle:]


def test_weights_are_kept_block_by_block() -> None:
    order = WeightedOrder([ShuffledOrder(1000, 1), ShuffledOrder(7, 2)], [0.6, 0.4], 1, 0)
    visits = np.array(met(order, 0, 3 * ORDER_BLOCK))
    for block in visits.reshape(3, ORDER_BLOCK):
        assert (block < 1000).sum() == 6000
    small = Counter(visits[visits >= 1000].tolist())
    assert max(small.values()) - min(small.values()) <= 1
    large = Counter(visits[visits < 1000].tolist())
    assert set(large.values()) == {18}
    assert abs((visits[:500] < 1000).mean() - 0.6) < 0.08
    assert met(order, 777, 1234) == visits[777:1234].tolist()


@settings(deadline=None)
@given(st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=20))
def test_a_block_is_shared_out_whole_and_every_part_gets_some(weights: list[float]) -> None:
    places = apportion_places(weights)
    assert sum(places) == ORDER_BLOCK
    assert min(places) >= 1


@pytest.mark.parametrize(
    "caption",
    [
        "a cube on the left",
        "Right-hand side",
        "the LEFTMOST star",
        "looking rightwards",
        "upper_left corner",
        "ｌｅｆｔ of it",
        "to the l\u00adeft",
        "turning counter-clockwise",
        "anticlockwise",
        "left/right",
    ],
)
def test_captions_that_say_a_side(caption: str) -> None:
    assert mentions_a_side(("a plain one", caption))


@pytest.mark.parametrize("caption", ["a bright copyright sign", "a cleft rock", "an upright clock", ""])
def test_captions_that_say_none(caption: str) -> None:
    assert not mentions_a_side((caption,))


def world(**settings: object) -> World:
    return World(World.Config.model_validate({"scenes": 300, **settings}), RejectedPictures())


def test_half_of_the_visits_are_mirrored_but_no_picture_with_a_side() -> None:
    dataset = world(flip=True)
    visits = VisitSampler(dataset, 0, (64, 64), 8, 4).at(range(900))
    sided = [visit.flipped for visit, sample in visits if mentions_a_side(sample.captions)]
    others = [visit.flipped for visit, sample in visits if not mentions_a_side(sample.captions)]
    assert sided
    assert not any(sided)
    assert 0.42 < sum(others) / len(others) < 0.58
    assert VisitSampler(dataset, 0, (64, 64), 8, 4).at(range(450, 900)) == visits[450:]
    assert not any(visit.flipped for visit, _ in VisitSampler(world(), 0, (64, 64), 8, 4).at(range(100)))


def test_without_buckets_every_visit_is_square_and_the_order_that_of_all_pictures() -> None:
    visits = VisitSampler(world(), 5, (64, 64), 8, 4)
    assert {visit.size for visit, _ in visits.at(range(50))} == {(64, 64)}
    assert [visit.index for visit, _ in visits.at(range(50))] == met(ShuffledOrder(300, 5), 0, 50)
    same = VisitSampler(world(buckets=True), 5, (64, 64), 8, 4)
    assert {visit.size for visit, _ in same.at(range(50))} == {(64, 64)}  # the world's pictures are square


def test_a_mixture_with_buckets_keeps_passes_of_one_part() -> None:
    parts = [{"kind": "world", "scenes": 30, "weight": 3}, {"kind": "world", "scenes": 50, "weight": 1}]
    mixture = Mixture(Mixture.Config.model_validate({"parts": parts, "buckets": 3}), RejectedPictures())
    visits = VisitSampler(mixture, 0, (64, 64), 8, 4)
    indices = [visit.index for visit, _ in visits.at(range(4000))]
    for start in range(0, 4000, 4):
        assert len({index < 30 for index in indices[start : start + 4]}) == 1
    assert abs(sum(index < 30 for index in indices) / 4000 - 0.75) < 0.05
