"""The values that packages exchange: frozen, keyword-only, with their shapes.

    prompts --language--> TextFeatures --connector--> Conditioning --vision--> prediction

A mask is True for a real token, whichever side is padded.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
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
    """Cross-attention layers by name; empty for joint attention of text and image."""
    rms: float | None = None
    """Root mean square of the model's training tokens, if known."""


@dataclass(frozen=True, kw_only=True)
class ReadingSpec:
    """What a connector requests from a language model."""

    layers: tuple[int, ...] = (-1,)
    """Layers, counted from 0 (the embeddings) or from the end: -1 is the normed output."""
    context_free: bool = False
    """Whether to return every token's features without its context as well (`TextFeatures.context_free`)."""
    queries: Float[Tensor, "query width"] | None = None
    """Vectors appended to each prompt's tokens; the features are then those of the vectors."""
    keeps_prompt: bool = False
    """Whether the features of the prompt's tokens precede those of the vectors."""


LAST_LAYER = ReadingSpec()
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

    def split(self) -> list["TextFeatures"]:
        """Return each prompt's features as a batch of one without padding; ``pad`` joins them again."""
        return [
            TextFeatures(
                hidden=_real(self.hidden, self.mask, row),
                mask=_real_mask(self.mask, row),
                pooled=None if self.pooled is None else self.pooled[row : row + 1],
                context_free=_real(self.context_free, self.mask, row),
                passthrough_tokens=_real(self.passthrough_tokens, self.passthrough_mask, row),
                passthrough_mask=_real_mask(self.passthrough_mask, row),
            )
            for row in range(len(self.mask))
        ]

    @staticmethod
    def pad(parts: Sequence["TextFeatures"]) -> "TextFeatures":
        """Join batches of one into a single batch; zeros, masked, fill up the shorter prompts."""
        return TextFeatures(
            hidden=_padded([part.hidden for part in parts]),
            mask=_padded_mask([part.mask for part in parts]),
            pooled=_joined([part.pooled for part in parts]),
            context_free=_padded([part.context_free for part in parts]),
            passthrough_tokens=_padded([part.passthrough_tokens for part in parts]),
            passthrough_mask=_padded_mask([part.passthrough_mask for part in parts]),
        )

    def to(self, device: torch.device) -> "TextFeatures":
        """Return the same features on another device."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(
            self, **{name: value.to(device) for name, value in values.items() if value is not None}
        )


Attention = Callable[[Float[Tensor, "batch query width"], Float[Tensor, "batch query inner"]], Tensor]
"""(layer input, output of the layer's own attention) -> the output to use instead, of the same shape."""


@dataclass(frozen=True, kw_only=True)
class BlockTokens:
    """Tokens that one cross-attention layer reads instead of the tokens of the conditioning."""

    tokens: Float[Tensor, "batch token context"]
    """As many as the conditioning has, with its mask; the denoiser projects them as it does the others."""


@dataclass(frozen=True, kw_only=True)
class Conditioning:
    """The output of a connector and the input of a vision model."""

    tokens: Float[Tensor, "batch token context"]
    mask: Bool[Tensor, "batch token"]
    pooled: Float[Tensor, "batch pooled"] | None = None
    blocks: Mapping[str, Attention | BlockTokens] = field(default_factory=dict)
    """What replaces the attention or the tokens of single cross-attention layers, by layer name, from
    per-block connectors."""

    def split(self) -> list["Conditioning"]:
        """Return each prompt's conditioning as a batch of one without padding. Raises ValueError with
        ``blocks``."""
        self._need_no_blocks()
        return [
            Conditioning(
                tokens=_real(self.tokens, self.mask, row),
                mask=_real_mask(self.mask, row),
                pooled=None if self.pooled is None else self.pooled[row : row + 1],
            )
            for row in range(len(self.mask))
        ]

    @staticmethod
    def pad(parts: Sequence["Conditioning"], width: int | None = None) -> "Conditioning":
        """Join batches of one into a single batch of ``width`` tokens; None takes the longest."""
        for part in parts:
            part._need_no_blocks()
        return Conditioning(
            tokens=_padded([part.tokens for part in parts], width),
            mask=_padded_mask([part.mask for part in parts], width),
            pooled=_joined([part.pooled for part in parts]),
        )

    def _need_no_blocks(self) -> None:
        if self.blocks:
            raise ValueError("a conditioning with `blocks` belongs to one call and cannot be split or padded")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Training samples: latents, one prompt each, and names for reports."""

    prompts: tuple[str, ...]
    names: tuple[str, ...]
    latents: Float[Tensor, "batch channel latent_height latent_width"]
    """Latents in the denoiser's scale."""
    features: TextFeatures | None = None
    """The prompts' language features, if they are known already."""
    target: Float[Tensor, "batch channel latent_height latent_width"] | None = None
    """The teacher's prediction; None derives the target from latents and noise."""

    def __post_init__(self) -> None:
        if not len(self.prompts) == len(self.names) == len(self.latents):
            raise ValueError(
                f"a Batch needs one prompt and one name per sample, found {len(self.latents)} latents, "
                f"{len(self.prompts)} prompts and {len(self.names)} names"
            )


def _real(values: Any, mask: Any, row: int) -> Any:
    """The row's real tokens, on the second last axis; None if there are no values."""
    return None if values is None or mask is None else values[row : row + 1][..., mask[row], :]


def _real_mask(mask: Any, row: int) -> Any:
    return None if mask is None else mask[row][mask[row]][None]


def _padded(parts: Sequence[Any], width: int | None = None) -> Any:
    """Join batches of one, with zeros after the shorter ones; None if there are no values."""
    found = [part for part in parts if part is not None]
    if not found:
        return None
    first, longest = found[0], max(part.shape[-2] for part in found)
    together = first.new_zeros(
        len(found), *first.shape[1:-2], longest if width is None else width, first.shape[-1]
    )
    for row, part in zip(together, found, strict=True):
        row[..., : part.shape[-2], :] = part[0]
    return together


def _padded_mask(masks: Sequence[Any], width: int | None = None) -> Any:
    padded = _padded([None if mask is None else mask[..., None] for mask in masks], width)
    return None if padded is None else padded[..., 0]


def _joined(parts: Sequence[Any]) -> Any:
    found = [part for part in parts if part is not None]
    return torch.cat(found) if found else None
