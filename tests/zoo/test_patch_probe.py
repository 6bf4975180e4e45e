"""What a picture shows, patch by patch: labels of what is drawn there, which tokens can learn."""

import numpy as np
import torch

from lavibridge.world.scene import CANVAS, COLORS, GROUND, SHAPES, TEXTURES
from lavibridge.zoo.patch_probe import MIN_PATCH_PIXELS, PATCHES_PER_SIDE, PatchProbe, patch_labels
from lavibridge.zoo.scene_pool import draw_scene_pool, sample_scene_pool

PATCH = CANVAS // PATCHES_PER_SIDE


def test_labels_are_those_of_the_thing_that_is_drawn_there() -> None:
    pairs = [pair for pair in sample_scene_pool(3, 200) if len(pair.scene.things) == 1]
    assert len(pairs) > 30
    labels = patch_labels(pairs)
    drawn = (
        draw_scene_pool(pairs)
        .numpy()
        .reshape(-1, PATCHES_PER_SIDE, PATCH, PATCHES_PER_SIDE, PATCH, 3)
        .transpose(0, 1, 3, 2, 4, 5)
    )
    drawn = drawn.reshape(len(pairs), PATCHES_PER_SIDE**2, PATCH**2, 3)
    for pair, kinds, boxes, patches in zip(pairs, labels.kinds, labels.boxes, drawn, strict=True):
        (thing,) = pair.scene.things
        said = (SHAPES.index(thing.shape), list(COLORS).index(thing.color), TEXTURES.index(thing.texture))
        for index in range(PATCHES_PER_SIDE**2):
            painted = (patches[index] != GROUND).any(axis=-1).sum()
            if kinds[index, 0] == 0:
                assert painted < 4 * MIN_PATCH_PIXELS, (
                    "edges that cover less than half of a pixel are painted too"
                )
                assert boxes[index].eq(0).all()
                continue
            assert painted >= MIN_PATCH_PIXELS
            assert (kinds[index] - 1).tolist() == list(said)
            row, column = divmod(index, PATCHES_PER_SIDE)
            patch = np.array([column, row]) * PATCH + PATCH / 2
            np.testing.assert_allclose(patch + 16 * boxes[index, :2].numpy(), thing.center, atol=1e-4)
            assert 16 * boxes[index, 2] == thing.side


def test_tokens_can_learn_the_answers() -> None:
    torch.manual_seed(0)
    labels = patch_labels(sample_scene_pool(4, 3))
    questions = PatchProbe(24)
    tokens = torch.randn(3, PATCHES_PER_SIDE**2, 24, requires_grad=True)
    optimizer = torch.optim.Adam([tokens, *questions.parameters()], lr=0.05)
    before = questions(tokens, labels)
    assert before.shape == (3,)
    for _ in range(150):
        optimizer.zero_grad()
        loss = questions(tokens, labels).sum()
        loss.backward()
        optimizer.step()
    assert (questions(tokens, labels) < 0.1 * before).all()
    assert torch.equal(labels[torch.tensor([2])].kinds[0], labels.kinds[2])
