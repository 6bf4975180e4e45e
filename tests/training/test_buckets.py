"""Pictures of many shapes and mirror images, all the way through the models."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lavibridge.data.folder import Folder
from lavibridge.data.pictures.rejected import RejectedPictures
from lavibridge.recipes.recipe import Recipe
from lavibridge.training.build_bridge import build_bridge
from lavibridge.training.data.batches import BatchLoader
from lavibridge.training.data.sampler import Visit

SHAPES = ((40, 40), (60, 30), (30, 60), (64, 31))
"""(width, height) of the pictures' files."""


def pictures(folder: Path) -> Path:
    """Six pictures of each shape, a gradient from left to right in each."""
    for number in range(24):
        width, height = SHAPES[number % 4]
        row = np.linspace(0, 255, width).astype(np.uint8)
        Image.fromarray(np.repeat(row[None], height, axis=0)).convert("RGB").save(
            folder / f"{number:02d}.png"
        )
        (folder / f"{number:02d}.txt").write_text("a ramp" if number % 2 else "dark on the left")
    return folder


def test_every_pass_has_one_shape_and_the_models_take_it(toy: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = toy(training={"batch": 2})
    bridge = build_bridge(recipe)
    config = Folder.Config(path=pictures(tmp_path), buckets=3, flip=True)
    fed = BatchLoader(Folder(config, RejectedPictures()), bridge.vision, recipe.training, (32, 32))
    unit = bridge.vision.unit
    seen = set()
    for step in range(12):
        visits = [visit for visit, _ in fed.visits.at(range(2 * step, 2 * step + 2))]
        height, width = visits[0].size
        assert {visit.size for visit in visits} == {(height, width)}
        assert height % unit == width % unit == 0
        draw = fed.draw(step, 0)
        assert draw.batch.latents is not None
        assert (
            draw.batch.latents.shape[1:] == bridge.vision.latent_shape(height, width) == draw.noise.shape[1:]
        )
        if (height, width) not in seen:
            losses = bridge(draw.batch, draw.t, draw.noise)
            assert torch.isfinite(losses).all()
        seen.add((height, width))
    assert len(seen) == 3
    assert {height < width for height, width in seen} == {True, False}


def test_the_latents_of_a_mirrored_visit_are_those_of_the_mirror_image(
    toy: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = toy(training={"batch": 2})
    bridge = build_bridge(recipe)
    dataset = Folder(Folder.Config(path=pictures(tmp_path), flip=True), RejectedPictures())
    fed = BatchLoader(dataset, bridge.vision, recipe.training, (32, 32))
    mean, _ = fed.caches.latents.moments([Visit(index=1, size=(32, 32), flipped=True)])
    mirrored = torch.from_numpy(dataset.picture(1, (32, 32))[:, ::-1].copy()).permute(2, 0, 1)[None]
    expected, _ = bridge.vision.encode_moments(mirrored / 127.5 - 1)
    torch.testing.assert_close(mean, expected, rtol=1e-4, atol=1e-5)
    plain, _ = fed.caches.latents.moments([Visit(index=1, size=(32, 32))])
    assert not torch.allclose(mean, plain, atol=1e-3)
