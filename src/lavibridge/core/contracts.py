"""The values that packages exchange: frozen, keyword-only, with their shapes.

    prompts --language--> TextFeatures --connector--> Conditioning --vision--> prediction

A mask is True for a real token, whichever side is padded.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TextSpec:
    """The properties of a language model that a connector may use."""

    width: int
    """Width of a token's features."""
    layers: int
    """Number of readable layers: the embeddings and the output of every block."""
    read: str = "last"
    """The default read-out over layers for the model; a connector's own `read` overrides it."""
    pooled: int | None = None
    """Width of the model's own pooled vector, or None."""
    passthrough: int | None = None
    """Width of the tokens that bypass the connector, or None if the model has none (see `pair`)."""


@dataclass(frozen=True, kw_only=True)
class BlockSpec:
    """The properties of one cross-attention layer that a per-block connector may use."""

    width: int
    """Width of the layer's input."""
    inner: int
    """Width of its queries, over all heads."""
    heads: int


@dataclass(frozen=True, kw_only=True)
class VisionSpec:
    """The properties of a vision model that a connector may use."""

    context: int
    """Width of the conditioning tokens."""
    pooled: int | None = None
    """Width of the pooled vector, or None if the model takes none."""
    blocks: Mapping[str, BlockSpec] = field(default_factory=dict)
    """Cross-attention layers by name; empty if text and picture attend to each other jointly."""
    rms: float | None = None
    """Root mean square of the model's training tokens, if known."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a connector requests from a language model."""

    layers: tuple[int, ...] = (-1,)
    """Layers, counted from 0 (the embeddings) or from the end: -1 is the normed output."""
    context_free: bool = False
    """Whether to return every token's features without its context as well (`TextFeatures.context_free`)."""
    queries: Float[Tensor, "query width"] | None = None
    """Vectors appended to each prompt's tokens; the features are then those of the vectors."""


LAST_LAYER = Reading()
"""The normed output, which the published bridges read."""


@dataclass(frozen=True, kw_only=True)
class TextFeatures:
    """A language model's features of prompts."""

    hidden: Float[Tensor, "batch layer token width"]
    """The requested layers, float32; the last layer of the model comes after its final norm."""
    mask: Bool[Tensor, "batch token"]
    pooled: Float[Tensor, "batch _"] | None = None
    context_free: Float[Tensor, "batch layer token width"] | None = None
    """The same layers when every token attends only to itself."""
    passthrough_tokens: Float[Tensor, "batch other context"] | None = None
    """Tokens that bypass the connector and precede its own in the conditioning."""
    passthrough_mask: Bool[Tensor, "batch other"] | None = None


Attention = Callable[[Float[Tensor, "batch query width"], Float[Tensor, "batch query inner"]], Tensor]
"""(layer input, output of the layer's own attention) -> the output to use instead, of the same shape."""


@dataclass(frozen=True, kw_only=True)
class Conditioning:
    """The output of a connector and the input of a vision model."""

    tokens: Float[Tensor, "batch token context"]
    mask: Bool[Tensor, "batch token"]
    pooled: Float[Tensor, "batch pooled"] | None = None
    blocks: Mapping[str, Attention] = field(default_factory=dict)
    """Replacement attention of single cross-attention layers, by layer name, from per-block connectors."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Training samples: pictures or latents, one prompt each, and names for reports."""

    prompts: tuple[str, ...]
    names: tuple[str, ...]
    images: Float[Tensor, "batch 3 height width"] | None = None
    """RGB in [-1, 1]."""
    latents: Float[Tensor, "batch channel latent_height latent_width"] | None = None
    """Latents in the denoiser's scale."""
    features: TextFeatures | None = None
    """The prompts' language features, if they are known already."""
    wanted: Float[Tensor, "batch channel latent_height latent_width"] | None = None
    """The prediction target if a teacher supplies it; otherwise it follows from noise and picture."""

    def __post_init__(self) -> None:
        given = self.latents if self.latents is not None else self.images
        if given is None:
            raise ValueError("a Batch needs images or latents")
        if not len(self.prompts) == len(self.names) == given.shape[0]:
            raise ValueError(
                f"a Batch needs one prompt and one name per picture, found {given.shape[0]} pictures, "
                f"{len(self.prompts)} prompts and {len(self.names)} names"
            )
