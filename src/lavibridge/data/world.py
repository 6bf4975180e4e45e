"""Pairs from the miniature world: scene number i is sampled, drawn and captioned on request.

(seed, i) -> scene -> picture and caption          no files, no state, the same on every machine
"""

import hashlib
from functools import lru_cache

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image
from pydantic import Field, field_validator

from lavibridge.core.config import Seed
from lavibridge.core.errors import did_you_mean
from lavibridge.data.base import Dataset, Sample
from lavibridge.data.pictures.decoding import scale_and_crop
from lavibridge.data.pictures.rejected import RejectedPictures
from lavibridge.world.captions import TRAINING_MIX, CaptionedScene, sample_captioned_scene
from lavibridge.world.drawing import draw_scene
from lavibridge.world.scene import CANVAS


class World(Dataset):
    """Drawn scenes and their captions."""

    class Config(Dataset.Config):
        """Settings of `data.kind: world`."""

        scenes: int = Field(default=8000, ge=1)
        """Number of different scenes; every epoch has another order."""
        seed: Seed = 0
        """Seed of the scenes; another seed gives other scenes."""
        mix: dict[str, float] | None = None
        """Share of each category of prompts, such as `{one: 0.6, two: 0.4}`; by default the mix on which the
        miniature models were trained."""

        @field_validator("mix")
        @classmethod
        def _is_a_mix(cls, mix: dict[str, float] | None) -> dict[str, float] | None:
            """Accept training categories with shares above 0."""
            if mix is None:
                return None
            for name in mix:
                if name not in TRAINING_MIX:
                    raise ValueError(
                        f"'{name}' is not a category of training scenes"
                        f"{did_you_mean(name, tuple(TRAINING_MIX))} (there are {', '.join(TRAINING_MIX)})"
                    )
            if not mix or min(mix.values()) <= 0:
                raise ValueError("name at least one category, each with a share above 0")
            return mix

    def __init__(self, config: "World.Config", rejected: RejectedPictures) -> None:
        super().__init__(config, rejected)
        self.scenes = config.scenes
        self.seed = config.seed
        self.mix = TRAINING_MIX
        if config.mix is not None:
            total = sum(config.mix.values())
            self.mix = {name: share / total for name, share in config.mix.items()}
        # Sampling a scene takes longer than drawing it, and a batch needs its caption, then its picture.
        # Captions stay in memory, because every later visit needs them.
        self.pair = lru_cache(maxsize=1024)(self.imagine)
        self.captions: dict[int, str] = {}

    def imagine(self, index: int) -> CaptionedScene:
        """Return scene and caption number `index` of this set."""
        pair = sample_captioned_scene(self.seed, index, mix=self.mix)
        self.captions[index] = pair.caption
        return pair

    def __len__(self) -> int:
        return self.scenes

    def sample(self, index: int) -> Sample:
        if index not in self.captions:
            self.pair(index)
        return Sample(name=f"scene-{index:06d}", captions=(self.captions[index],))

    def picture(self, index: int, size: tuple[int, int]) -> UInt8[np.ndarray, "height width 3"]:
        return scale_and_crop(Image.fromarray(draw_scene(self.pair(index).scene)), size)

    def sizes(self) -> Int[np.ndarray, "picture 2"]:
        return np.full((len(self), 2), CANVAS)

    def content(self, index: int) -> bytes:
        return draw_scene(self.pair(index).scene).tobytes()

    def fingerprint(self) -> str:
        """Combine number, seed and a hash of some captions, which changes with the code of the world."""
        some = "\n".join(self.sample(index).captions[0] for index in range(min(64, len(self))))
        return f"{len(self)} scenes of seed {self.seed}, {hashlib.sha256(some.encode()).hexdigest()[:16]}"
