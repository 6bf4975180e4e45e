"""Objectives for which several captions share the same noised latents.

Much of what a denoiser's layers compute depends on the noised latents, which student and teacher have in
common. Captions that share them show how much depends on the caption, and by that variance the fvu divides.
"""

import torch
from jaxtyping import Int
from pydantic import Field
from torch import Tensor

from lavibridge.alignment.base import AlignmentObjective


class SharedLatentsObjective(AlignmentObjective):
    """Chooses the same noised latents for several captions."""

    class Config(AlignmentObjective.Config):
        """Options of objectives that look at noised latents."""

        captions_per_image: int = Field(default=4, ge=2)
        """Number of captions that share the same noised latents in a step."""

    config: Config

    def choose(self, count: int, generator: torch.Generator) -> Int[Tensor, " caption"]:
        """Choose the same latents for each group of `captions_per_image` captions."""
        groups = -(-count // self.config.captions_per_image)
        images = torch.randint(len(self.t), (groups,), generator=generator)
        return images.repeat_interleave(self.config.captions_per_image)[:count]
