"""`mini-resnet`: a small residual network that labels the contents of a picture (He et al. 2015, arXiv
1512.03385).

    picture -> one yes or no for each shape, color, texture and number of things

It serves as a scorer, and as the source of features for Frechet and kernel distances, where the published
metrics use Inception. Training perturbs the pictures slightly (noise, brightness, blur), because generated
pictures are not clean.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPImageProcessorPil, ResNetConfig, ResNetForImageClassification

from lavibridge.world.scene import CANVAS, COLORS, SHAPES, TEXTURES, Scene
from lavibridge.zoo.pretraining import Pretraining
from lavibridge.zoo.scene_pool import draw_scene_pool, sample_scene_pool, scene_pool_images

_MAX_THINGS = 4
CLASSIFIER_LABELS = (*SHAPES, *COLORS, *TEXTURES, *(f"{count} things" for count in range(1, _MAX_THINGS + 1)))
_HELD_OUT_SEED = 7_200


class ClassifierPretraining(Pretraining):
    """Trains every label with its own binary cross-entropy."""

    name = "mini-resnet"
    steps = 2500
    batch = 48
    lr = 2e-3

    def __init__(self, pool: int = 20_000, held_out: int = 500) -> None:
        torch.manual_seed(self.seed)
        config = ResNetConfig(
            embedding_size=32,
            hidden_sizes=[32, 64, 96],
            depths=[1, 2, 2],
            layer_type="basic",
            id2label=dict(enumerate(CLASSIFIER_LABELS)),
            label2id={label: index for index, label in enumerate(CLASSIFIER_LABELS)},
            problem_type="multi_label_classification",
        )
        self.network = ResNetForImageClassification(config).to(memory_format=torch.channels_last)
        self.networks = nn.ModuleDict({"resnet": self.network})
        self.images, self.truths = _labelled(self.seed + 3, pool)
        self.held_out = _labelled(_HELD_OUT_SEED, held_out)

    def loss(self, step: int) -> Tensor:
        """Return the loss of a batch of perturbed pictures."""
        chosen = torch.randint(len(self.images), (self.batch,))
        images = _perturbed(scene_pool_images(self.images[chosen]))
        loss: Tensor = self.network(pixel_values=images, labels=self.truths[chosen]).loss
        return loss

    def scores(self) -> dict[str, float]:
        """Return, on held-out clean pictures, the fraction of correct labels and of pictures with all labels
        correct."""
        images, truths = self.held_out
        parts = [self.network(pixel_values=scene_pool_images(part)).logits > 0 for part in images.split(100)]
        right = torch.cat(parts) == truths.bool()
        return {"labels": float(right.float().mean()), "pictures": float(right.all(1).float().mean())}

    def export(self, folder: Path) -> None:
        """Write a `ResNetForImageClassification` folder with its image processor."""
        self.network.half().save_pretrained(folder)
        self.network.float()
        half = [0.5, 0.5, 0.5]
        size = {"shortest_edge": CANVAS}
        processor = CLIPImageProcessorPil(size=size, crop_size=CANVAS, image_mean=half, image_std=half)
        processor.save_pretrained(folder)


def labels_of_scene(scene: Scene) -> list[float]:
    """Return 1 for each label that is true of a scene, otherwise 0."""
    seen = {value for thing in scene.things for value in (thing.shape, thing.color, thing.texture)}
    seen.add(f"{len(scene.things)} things")
    return [float(label in seen) for label in CLASSIFIER_LABELS]


def _perturbed(images: Float[Tensor, "batch 3 64 64"]) -> Float[Tensor, "batch 3 64 64"]:
    """Return the pictures with noise and a brightness shift each, and half of them blurred."""
    many = len(images)
    soft = functional.avg_pool2d(functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    blurred = torch.where(torch.rand(many, 1, 1, 1) < 0.5, torch.lerp(images, soft, 0.6), images)
    noise = 0.1 * torch.rand(many, 1, 1, 1) * torch.randn_like(images)
    return blurred + noise + 0.06 * torch.randn(many, 1, 1, 1)


def _labelled(seed: int, count: int) -> tuple[Tensor, Tensor]:
    pairs = sample_scene_pool(seed, count)
    return draw_scene_pool(pairs), torch.tensor(
        np.array([labels_of_scene(pair.scene) for pair in pairs]), dtype=torch.float32
    )
