"""What a step is fed: the same visits however they are cut into batches, and always the same latents."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lavibridge.bridge import Bridge
from lavibridge.core.errors import DataError
from lavibridge.data.base import Dataset, open_dataset
from lavibridge.data.pictures.decoding import normalize_pixels
from lavibridge.data.pictures.rejected import RejectedPictures
from lavibridge.data.world import World
from lavibridge.recipes.recipe import Recipe, make_recipe
from lavibridge.recipes.sections import kind_of_section, read_section
from lavibridge.training.assemble import loader_class
from lavibridge.training.build_bridge import build_bridge
from lavibridge.training.cache.backend import MemoryBackend
from lavibridge.training.data.batches import BatchLoader, PrefetchLoader, TrainingPass
from lavibridge.training.data.sampler import Visit

SIZE = (16, 16)


@pytest.fixture(scope="module")
def bridge() -> Bridge:
    return build_bridge(
        make_recipe(
            {
                "language": {"kind": "llama", "source": "random"},
                "vision": {"kind": "sd", "source": "random"},
                "connector": "lavi",
                "lora": {"language": {"rank": 4}, "vision": {"rank": 4}},
                "data": {"kind": "world"},
                "training": {"steps": 1},
            }
        )
    )


def world(scenes: int = 10) -> Dataset:
    return World(World.Config(scenes=scenes), RejectedPictures())


def batches(
    bridge: Bridge, recipe: Recipe, dataset: Dataset | None = None, rank: int = 0, of: int = 1
) -> BatchLoader:
    return BatchLoader(dataset or world(), bridge.vision, recipe.training, SIZE, rank, of)


def latents_of(draw: TrainingPass) -> torch.Tensor:
    assert draw.batch.latents is not None
    return draw.batch.latents


def joined(draws: list[TrainingPass]) -> tuple[tuple[str, ...], tuple[str, ...], torch.Tensor, torch.Tensor]:
    names = tuple(name for draw in draws for name in draw.batch.names)
    prompts = tuple(prompt for draw in draws for prompt in draw.batch.prompts)
    return names, prompts, torch.cat([d.t for d in draws]), torch.cat([d.noise for d in draws])


def test_two_half_batches_meet_what_the_whole_batch_meets(bridge: Bridge, toy: Callable[..., Recipe]) -> None:
    whole = batches(bridge, toy(training={"batch": 4}))
    halves = batches(bridge, toy(training={"batch": 2, "accumulate": 2}))
    ranks = [batches(bridge, toy(training={"batch": 2}), rank=rank, of=2) for rank in range(2)]
    for step in (0, 3):
        expected = joined([whole.draw(step, 0)])
        for found in (
            joined([halves.draw(step, 0), halves.draw(step, 1)]),
            joined([rank.draw(step, 0) for rank in ranks]),
        ):
            assert found[:2] == expected[:2]
            assert torch.equal(found[2], expected[2])
            assert torch.equal(found[3], expected[3])
    assert whole.pictures_per_step == halves.pictures_per_step == ranks[0].pictures_per_step == 4


def test_latents_do_not_depend_on_where_a_run_was_taken_up(
    bridge: Bridge, toy: Callable[..., Recipe]
) -> None:
    recipe = toy(training={"batch": 3})
    straight = batches(bridge, recipe)
    expected = [straight.draw(step, 0).batch.latents for step in range(9)]
    for start in (1, 4, 8):
        again = batches(bridge, recipe)
        for step in range(start, 9):
            latents = again.draw(step, 0).batch.latents
            assert latents is not None
            assert torch.equal(latents, expected[step])


def test_latents_are_the_same_bits_with_much_little_and_no_memory_and_in_any_batch(
    bridge: Bridge, toy: Callable[..., Recipe]
) -> None:
    two = 2 * 2 * 4 * math.prod(bridge.vision.latent_shape(*SIZE)) / 1e9  # gigabytes of two pictures
    straight = batches(bridge, toy(training={"batch": 3}))
    expected = torch.cat([latents_of(straight.draw(step, 0)) for step in range(5)])
    for memory, batch, kept in ((two, 3, 2), (0.0, 3, 0), (2.0, 5, 10)):
        fed = batches(bridge, toy(training={"batch": batch, "latent_cache_gb": memory}))
        found = torch.cat([latents_of(fed.draw(step, 0)) for step in range(15 // batch)])
        assert torch.equal(found, expected)
        assert isinstance(fed.caches.latents.backend, MemoryBackend)
        assert len(fed.caches.latents.backend.entries) == kept


def test_no_picture_is_encoded_before_it_is_needed_and_none_twice(
    bridge: Bridge, toy: Callable[..., Recipe]
) -> None:
    fed = batches(bridge, toy(training={"batch": 3}), world(9))
    for step in range(3):
        assert isinstance(fed.caches.latents.backend, MemoryBackend)
        assert len(fed.caches.latents.backend.entries) == 3 * step
        fed.draw(step, 0)
    fed.caches.latents.dataset = world(1)  # too small to be read from again
    fed.draw(7, 0)


def test_the_posterior_is_sampled_anew_at_each_visit(bridge: Bridge, toy: Callable[..., Recipe]) -> None:
    fed = batches(bridge, toy(training={"batch": 1}), world(1))
    first, second = fed.draw(0, 0).batch.latents, fed.draw(1, 0).batch.latents
    assert first is not None
    assert second is not None
    assert not torch.equal(first, second)


def test_the_latents_are_those_of_the_vision_model(bridge: Bridge, toy: Callable[..., Recipe]) -> None:
    fed = batches(bridge, toy(training={"batch": 2}))
    mean, std = fed.caches.latents.moments([Visit(index=4, size=SIZE), Visit(index=2, size=SIZE)])
    images = np.stack([normalize_pixels(fed.dataset.picture(index, SIZE)) for index in (4, 2)])
    expected = bridge.vision.encode_moments(torch.from_numpy(images))
    torch.testing.assert_close(mean, expected[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(std, expected[1], rtol=1e-4, atol=1e-5)


def test_captions_are_dropped_at_the_asked_rate(bridge: Bridge, toy: Callable[..., Recipe]) -> None:
    fed = batches(bridge, toy(training={"batch": 50, "caption_dropout": 0.3}))
    prompts = [prompt for step in range(10) for prompt in fed.draw(step, 0).batch.prompts]
    assert 0.22 < sum(prompt == "" for prompt in prompts) / 500 < 0.38
    never = batches(bridge, toy(training={"batch": 50, "caption_dropout": 0.0}))
    assert all(never.draw(0, 0).batch.prompts)


def test_all_captions_of_a_picture_are_met(
    bridge: Bridge, toy: Callable[..., Recipe], tmp_path: Path
) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    (tmp_path / "pairs.tsv").write_text("a.png\tone\na.png\ttwo\na.png\tthree\n")
    dataset = open_pairs(tmp_path / "pairs.tsv")
    fed = batches(bridge, toy(training={"batch": 40, "caption_dropout": 0.0}), dataset)
    assert set(fed.draw(0, 0).batch.prompts) == {"one", "two", "three"}


def open_pairs(path: Path, **options: Any) -> Dataset:
    section = read_section("data", {"kind": "tsv", "path": path, **options})
    assert isinstance(section, Dataset.Config)
    return open_dataset(kind_of_section(section), section, RejectedPictures())


def test_timesteps_cover_the_whole_schedule(bridge: Bridge, toy: Callable[..., Recipe]) -> None:
    fed = batches(bridge, toy(training={"batch": 400}))
    t = fed.draw(0, 0).t
    assert int(t.min()) < 20
    assert int(t.max()) > 980
    assert int(t.max()) < fed.times


def test_reading_ahead_gives_the_same_passes_in_any_order(bridge: Bridge, toy: Callable[..., Recipe]) -> None:
    recipe = toy(training={"batch": 3, "accumulate": 2})
    plain = batches(bridge, recipe)
    ahead = PrefetchLoader(world(), bridge.vision, recipe.training, SIZE)
    for step, turn in ((0, 0), (0, 1), (1, 0), (4, 1), (5, 0), (0, 0), (0, 1)):
        expected, found = plain.draw(step, turn), ahead.draw(step, turn)
        assert found.batch.prompts == expected.batch.prompts
        assert found.batch.latents is not None
        assert expected.batch.latents is not None
        assert torch.equal(found.batch.latents, expected.batch.latents)
        assert torch.equal(found.noise, expected.noise)
    ahead.close()


@pytest.mark.parametrize(
    ("device", "workers", "expected"),
    [
        ("cuda", 8, PrefetchLoader),
        ("mps", 1, PrefetchLoader),
        ("cuda", 0, BatchLoader),
        ("cpu", 8, BatchLoader),
    ],
)
def test_only_a_gpu_has_its_batches_prefetched(
    device: str, workers: int, expected: type[BatchLoader]
) -> None:
    assert loader_class(torch.device(device), workers) is expected


def test_an_error_while_reading_ahead_is_not_lost(
    bridge: Bridge, toy: Callable[..., Recipe], tmp_path: Path
) -> None:
    for name in ("a", "b"):
        Image.new("RGB", (20, 20)).save(tmp_path / f"{name}.png")
    (tmp_path / "pairs.tsv").write_text("a.png\tone\nb.png\ttwo\n")
    ahead = PrefetchLoader(
        open_pairs(tmp_path / "pairs.tsv"), bridge.vision, toy(training={"batch": 1}).training, SIZE
    )
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").unlink()
    with pytest.raises(DataError, match="no longer is"):
        ahead.draw(0, 0)
    ahead.close()


def test_a_visit_s_tags_depend_on_the_seed_and_the_position_alone(
    bridge: Bridge, toy: Callable[..., Recipe], tmp_path: Path
) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    (tmp_path / "pairs.tsv").write_text("a.png\tone, two, three, four\n")
    options = {"shuffle_tags": True, "tag_dropout": 0.2, "trigger": "sks"}

    def prompts(batch: int, seed: int = 0) -> list[str]:
        dataset = open_pairs(tmp_path / "pairs.tsv", **options)
        recipe = toy(training={"batch": batch, "caption_dropout": 0.0, "seed": seed})
        fed = batches(bridge, recipe, dataset)
        return [prompt for step in range(24 // batch) for prompt in fed.draw(step, 0).batch.prompts]

    assert prompts(24) == prompts(6) == prompts(3)
    assert prompts(24) != prompts(24, seed=1)
    assert len(set(prompts(24))) > 8
    assert all(prompt.startswith("sks") for prompt in prompts(24))
