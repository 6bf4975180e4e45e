"""Pairs from the miniature world: scene number i is imagined, drawn and described when it is asked for.

(seed, i) -> scene -> picture and caption          no files, no state, the same on every machine
"""

import hashlib
from functools import lru_cache

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from pydantic import Field

from lavibridge.data.base import Dataset, Sample
from lavibridge.data.pictures.read import fit
from lavibridge.data.pictures.rejected import Rejected
from lavibridge.world.captions import Pair, sample_pair
from lavibridge.world.drawing import draw


class World(Dataset):
    """Drawn scenes and their captions."""

    class Config(Dataset.Config):
        """Settings of `data.kind: world`."""

        scenes: int = Field(default=8000, ge=1)
        """How many different scenes there are; the order of visits is shuffled anew each time round."""
        seed: int = Field(default=0, ge=0)
        """Which scenes: another seed is another set."""

    def __init__(self, config: "World.Config", rejected: Rejected) -> None:
        super().__init__(config, rejected)
        self.scenes = config.scenes
        self.seed = config.seed
        # A batch asks for a scene's caption and its picture one after the other: imagine it once.
        self.pair = lru_cache(maxsize=4096)(self.imagine)

    def imagine(self, index: int) -> Pair:
        """Scene and caption number `index` of this set."""
        return sample_pair(self.seed, index)

    def __len__(self) -> int:
        return self.scenes

    def sample(self, index: int) -> Sample:
        return Sample(name=f"scene-{index:06d}", captions=(self.pair(index).caption,))

    def picture(self, index: int, size: tuple[int, int]) -> UInt8[np.ndarray, "height width 3"]:
        return fit(Image.fromarray(draw(self.pair(index).scene)), size)

    def fingerprint(self) -> str:
        """Number, seed, and a hash over some captions, which changes when the world's own code does."""
        some = "\n".join(self.sample(index).captions[0] for index in range(min(64, len(self))))
        return f"{len(self)} scenes of seed {self.seed}, {hashlib.sha256(some.encode()).hexdigest()[:16]}"
