"""`mini-clip`: a text tower and an image tower, trained to agree (Radford et al. 2021, arXiv 2103.00020).

    loss = 1/2 [cross-entropy over rows + over columns of  exp(s) <image_i, text_j>]

Half of a batch are hard negatives of the other half: the same prompt with two colours or the ends of a
relation swapped, or with one attribute changed, with a new caption and image. Without them a few colour
words win the contrast, and the features of shapes, sizes and textures stay faint (measured: 0.13 of the
length against 0.89)."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTokenizer,
    CLIPVisionConfig,
)

from lavibridge.world.caption_templates import write_caption
from lavibridge.world.captions import CaptionedScene, sample_captioned_scene, sample_scene
from lavibridge.world.rng import rng_pick
from lavibridge.world.scene import COLORS, SHAPES, TEXTURES, WITHHELD, SceneSpec
from lavibridge.zoo.pretraining import Pretraining
from lavibridge.zoo.scene_pool import draw_scene_pool, sample_scene_pool, scene_pool_images
from lavibridge.zoo.tokenizers import CLIP_LENGTH, clip_tokenizer

_HELD_OUT_SEED = 7_100


class ClipPretraining(Pretraining):
    """Contrastive learning with hard negatives that differ in one swap."""

    name = "mini-clip"
    steps = 1200
    batch = 96
    lr = 1.5e-3

    def __init__(self, pool: int = 20_000) -> None:
        self.tokenizer = clip_tokenizer()
        torch.manual_seed(self.seed)
        self.network = CLIPModel(_config(self.tokenizer))
        self.networks = nn.ModuleDict({"clip": self.network})
        self.pairs = sample_scene_pool(self.seed + 1, pool)
        self.images = draw_scene_pool(self.pairs)
        self.held_out = [
            sample_captioned_scene(_HELD_OUT_SEED, i, category=["two", "color", "spatial"][i % 3])
            for i in range(300)
        ]

    def loss(self, step: int) -> Tensor:
        """Return the symmetric contrastive loss over pairs and their hard negatives."""
        chosen = torch.randint(len(self.pairs), (self.batch // 2,)).tolist()
        rng = np.random.default_rng([self.seed, step])
        partners = [
            pair for index in chosen if (pair := clip_hard_negative(rng, self.pairs[index])) is not None
        ]
        captions = [self.pairs[index].caption for index in chosen] + [pair.caption for pair in partners]
        images = self.images[chosen]
        if partners:
            images = torch.cat([images, draw_scene_pool(partners)])
        logits = self._logits(images, captions)
        truth = torch.arange(len(captions))
        return (nn.functional.cross_entropy(logits, truth) + nn.functional.cross_entropy(logits.T, truth)) / 2

    def scores(self) -> dict[str, float]:
        """Return how often a picture prefers its caption to its hard negative's, and to 99 others."""
        rng = np.random.default_rng(0)
        swapped = [
            (pair, other) for pair in self.held_out if (other := clip_hard_negative(rng, pair)) is not None
        ]
        true = self._logits(
            draw_scene_pool([pair for pair, _ in swapped]), [pair.caption for pair, _ in swapped]
        )
        false = self._logits(
            draw_scene_pool([pair for pair, _ in swapped]), [other.caption for _, other in swapped]
        )
        among = self._logits(
            draw_scene_pool(self.held_out[:100]), [pair.caption for pair in self.held_out[:100]]
        )
        return {
            "partner": float((true.diagonal() > false.diagonal()).float().mean()),
            "retrieval": float((among.argmax(1) == torch.arange(100)).float().mean()),
        }

    def export(self, folder: Path) -> None:
        """Write a `CLIPModel` folder with its tokenizer and its image processor."""
        self.network.half().save_pretrained(folder)
        self.network.float()
        self.tokenizer.save_pretrained(folder)
        side, half = self.network.config.vision_config.image_size, [0.5, 0.5, 0.5]
        size = {"shortest_edge": side}
        processor = CLIPImageProcessorPil(size=size, crop_size=side, image_mean=half, image_std=half)
        processor.save_pretrained(folder)

    def _logits(self, images: Tensor, captions: list[str]) -> Float[Tensor, "images captions"]:
        ids = self._tokens(captions)
        pixels = scene_pool_images(images)
        found = self.network(
            input_ids=ids["input_ids"], attention_mask=ids["attention_mask"], pixel_values=pixels
        )
        logits: Tensor = found.logits_per_image
        return logits

    def _tokens(self, captions: list[str]) -> dict[str, Int[Tensor, "batch token"]]:
        return dict(self.tokenizer(captions, padding=True, truncation=True, return_tensors="pt"))


def clip_hard_negative(rng: np.random.Generator, pair: CaptionedScene) -> CaptionedScene | None:
    """Return the pair with one fact changed, drawn and captioned anew, or None if the change is impossible.

    Swaps two colours or the ends of a relation, or changes one attribute of one group.
    """
    spec = pair.spec
    if spec.relation is not None and rng.random() < 0.4:
        changed = replace(spec, groups=(spec.groups[1], spec.groups[0], *spec.groups[2:]))
    elif len(spec.groups) >= 2 and spec.groups[0].color and spec.groups[1].color and rng.random() < 0.5:
        first = replace(spec.groups[0], color=spec.groups[1].color)
        second = replace(spec.groups[1], color=spec.groups[0].color)
        changed = replace(spec, groups=(first, second, *spec.groups[2:]))
    else:
        changed = _with_another_attribute(rng, spec)
    if any((group.color, group.shape) in WITHHELD for group in changed.groups):
        return None
    if spec.relation is not None and spec.relation.name == "inside" and changed.groups[1].shape != "ring":
        return None
    scene = sample_scene(rng, changed)
    if scene is None:
        return None
    caption = write_caption(rng, changed, pair.category)
    return CaptionedScene(
        index=pair.index, category=pair.category, caption=caption, spec=changed, scene=scene
    )


def _with_another_attribute(rng: np.random.Generator, spec: SceneSpec) -> SceneSpec:
    """Return the spec with one mentioned attribute of one group changed to another value."""
    choices = {"shape": SHAPES, "color": tuple(COLORS), "texture": TEXTURES, "size": ("small", "large")}
    place = int(rng.integers(len(spec.groups)))
    group = spec.groups[place]
    name = rng_pick(rng, [name for name in choices if getattr(group, name) is not None])
    others = [value for value in choices[name] if value != getattr(group, name)]
    groups = list(spec.groups)
    groups[place] = replace(group, **{name: rng_pick(rng, others)})  # type: ignore[arg-type]
    return replace(spec, groups=tuple(groups))


def _config(tokenizer: CLIPTokenizer) -> CLIPConfig:
    shared = {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 4, "projection_dim": 128}
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=CLIP_LENGTH,
        num_hidden_layers=4,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **shared,
    )
    vision = CLIPVisionConfig(image_size=64, patch_size=8, num_hidden_layers=3, **shared)
    return CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=128)
