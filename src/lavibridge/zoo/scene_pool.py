"""Pools of captioned scenes, sampled once on every core and then drawn from."""

import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lavibridge.world.captions import TRAINING_MIX, CaptionedScene, sample_captioned_scene
from lavibridge.world.drawing import draw_scene


def sample_scene_pool(seed: int, count: int, mix: Mapping[str, float] = TRAINING_MIX) -> list[CaptionedScene]:
    """Sample the captioned scenes 0 .. count - 1 of a seed, with the categories' shares in `mix`."""
    pair = partial(sample_captioned_scene, seed, mix=mix)
    if count < 2000:
        return [pair(index) for index in range(count)]
    with ProcessPoolExecutor(os.cpu_count()) as workers:
        return list(workers.map(pair, range(count), chunksize=500))


def draw_scene_pool(pairs: list[CaptionedScene]) -> UInt8[Tensor, "pairs 64 64 3"]:
    """Draw the scenes of the pairs."""
    return torch.from_numpy(np.stack([draw_scene(pair.scene) for pair in pairs]))


def scene_pool_images(stored: UInt8[Tensor, "batch height width 3"]) -> Float[Tensor, "batch 3 height width"]:
    """Convert pictures to a network's input: channels first, in [-1, 1]."""
    return (stored.permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
