"""The values that pass between the rooms: frozen, keyword-only, with their shapes.

    prompts --language--> TextFeatures --connector--> Conditioning --vision--> prediction

A mask is True where a token is real, whichever side is padded.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TextSpec:
    """What a connector may know of a language model."""

    width: int
    """Width of a token's features."""
    layers: int
    """Number of readable layers: the embeddings and the output of every block."""


@dataclass(frozen=True, kw_only=True)
class VisionSpec:
    """What a connector may know of a vision model."""

    context: int
    """Width of the conditioning tokens."""
    pooled: int | None = None
    """Width of the pooled vector, or None where the model takes none."""
    blocks: Mapping[str, int] = field(default_factory=dict)
    """Cross-attention blocks by name and the width that each reads (for per-block connectors)."""


@dataclass(frozen=True, kw_only=True)
class TextFeatures:
    """What a language model makes of prompts."""

    hidden: Float[Tensor, "batch layer token width"]
    """The kept layers, float32; the model's last layer comes after its final norm."""
    mask: Bool[Tensor, "batch token"]
    pooled: Float[Tensor, "batch width"] | None = None


@dataclass(frozen=True, kw_only=True)
class Conditioning:
    """What a connector gives to a vision model; nothing else makes one."""

    tokens: Float[Tensor, "batch token context"]
    mask: Bool[Tensor, "batch token"]
    pooled: Float[Tensor, "batch pooled"] | None = None
    blocks: Mapping[str, Float[Tensor, "batch _ _"]] = field(default_factory=dict)
    """Tokens for single blocks, by block name (per-block connectors)."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Training samples: pictures or latents, one prompt each, and names to report them by."""

    prompts: tuple[str, ...]
    names: tuple[str, ...]
    images: Float[Tensor, "batch 3 height width"] | None = None
    """RGB in [-1, 1]."""
    latents: Float[Tensor, "batch channel latent_height latent_width"] | None = None
    """Latents in the scale that the denoiser works in."""

    def __post_init__(self) -> None:
        given = self.latents if self.latents is not None else self.images
        if given is None:
            raise ValueError("a Batch needs images or latents")
        if not len(self.prompts) == len(self.names) == given.shape[0]:
            raise ValueError(
                f"a Batch needs one prompt and one name per picture, found {given.shape[0]} pictures, "
                f"{len(self.prompts)} prompts and {len(self.names)} names"
            )
