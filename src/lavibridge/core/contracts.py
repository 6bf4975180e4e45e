"""The values that pass between the rooms: frozen, keyword-only, with their shapes.

    prompts --language--> TextFeatures --connector--> Conditioning --vision--> prediction

A mask is True where a token is real, whichever side is padded.
"""

from collections.abc import Callable, Mapping
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
    read: str = "last"
    """The read-out over layers that suits the model; a connector's own `read` goes before it."""
    pooled: int | None = None
    """Width of its own pooled vector, where it has one."""
    passthrough: int | None = None
    """Width of the tokens that go past the connector, where the model has such (`pair`)."""


@dataclass(frozen=True, kw_only=True)
class BlockSpec:
    """What a per-block connector may know of one cross-attention layer."""

    width: int
    """Width of what asks in it."""
    inner: int
    """Width of its queries, over all heads."""
    heads: int


@dataclass(frozen=True, kw_only=True)
class VisionSpec:
    """What a connector may know of a vision model."""

    context: int
    """Width of the conditioning tokens."""
    pooled: int | None = None
    """Width of the pooled vector, or None where the model takes none."""
    blocks: Mapping[str, BlockSpec] = field(default_factory=dict)
    """Cross-attention layers by name; empty where text and picture attend to each other jointly."""
    rms: float | None = None
    """Root mean square of the tokens that it was trained with, where that is known."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a connector asks of a language model."""

    layers: tuple[int, ...] = (-1,)
    """Layers, from 0 (the embeddings) or from the end: -1 is the normed output."""
    context_free: bool = False
    """Also every token's features if it stood alone (`TextFeatures.context_free`)."""
    queries: Float[Tensor, "query width"] | None = None
    """Vectors put behind each prompt's tokens; the features are then theirs instead of the prompt's."""


LAST_LAYER = Reading()
"""The normed output, as the published bridges read it."""


@dataclass(frozen=True, kw_only=True)
class TextFeatures:
    """What a language model makes of prompts."""

    hidden: Float[Tensor, "batch layer token width"]
    """The kept layers, float32; the model's last layer comes after its final norm."""
    mask: Bool[Tensor, "batch token"]
    pooled: Float[Tensor, "batch _"] | None = None
    context_free: Float[Tensor, "batch layer token width"] | None = None
    """The same layers with every token seeing itself only."""
    passthrough_tokens: Float[Tensor, "batch other context"] | None = None
    """Tokens that go past the connector, to stand before its own in the conditioning."""
    passthrough_mask: Bool[Tensor, "batch other"] | None = None


Attention = Callable[[Float[Tensor, "batch query width"], Float[Tensor, "batch query inner"]], Tensor]
"""(what asks, what the layer's own attention answers) -> the answer that is used instead, of its shape."""


@dataclass(frozen=True, kw_only=True)
class Conditioning:
    """What a connector gives to a vision model; nothing else makes one."""

    tokens: Float[Tensor, "batch token context"]
    mask: Bool[Tensor, "batch token"]
    pooled: Float[Tensor, "batch pooled"] | None = None
    blocks: Mapping[str, Attention] = field(default_factory=dict)
    """What per-block connectors do in single cross-attention layers, by the layer's name."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Training samples: latents, one prompt each, and names to report them by."""

    prompts: tuple[str, ...]
    names: tuple[str, ...]
    latents: Float[Tensor, "batch channel latent_height latent_width"]
    """Latents in the scale that the denoiser works in."""
    features: TextFeatures | None = None
    """The language model's features of the prompts, if they are known already."""
    target: Float[Tensor, "batch channel latent_height latent_width"] | None = None
    """The teacher's prediction; None: the target follows from latents and noise."""

    def __post_init__(self) -> None:
        if not len(self.prompts) == len(self.names) == len(self.latents):
            raise ValueError(
                f"a Batch needs one prompt and one name per sample, found {len(self.latents)} latents, "
                f"{len(self.prompts)} prompts and {len(self.names)} names"
            )
