"""The values that pass between the rooms: frozen, keyword-only, with their shapes.

    prompts --language--> TextFeatures --connector--> Conditioning --vision--> prediction

A mask is True where a token is real, whichever side is padded.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
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

    def split(self) -> list["TextFeatures"]:
        """Each prompt's features as a batch of one, without padding; ``pad`` joins them again."""
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
        """Batches of one as a single batch, with zeros that the masks hide behind the shorter prompts."""
        return TextFeatures(
            hidden=_padded([part.hidden for part in parts]),
            mask=_padded_mask([part.mask for part in parts]),
            pooled=_joined([part.pooled for part in parts]),
            context_free=_padded([part.context_free for part in parts]),
            passthrough_tokens=_padded([part.passthrough_tokens for part in parts]),
            passthrough_mask=_padded_mask([part.passthrough_mask for part in parts]),
        )

    def to(self, device: torch.device) -> "TextFeatures":
        """The same features on another device."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return replace(
            self, **{name: value.to(device) for name, value in values.items() if value is not None}
        )


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

    def split(self) -> list["Conditioning"]:
        """Each prompt's conditioning as a batch of one, without padding; ValueError with ``blocks``."""
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
        """Batches of one as a single batch, ``width`` tokens wide; None: as wide as the longest."""
        for part in parts:
            part._need_no_blocks()
        return Conditioning(
            tokens=_padded([part.tokens for part in parts], width),
            mask=_padded_mask([part.mask for part in parts], width),
            pooled=_joined([part.pooled for part in parts]),
        )

    def _need_no_blocks(self) -> None:
        if self.blocks:
            raise ValueError(
                "a conditioning with `blocks` belongs to one call: it is neither split nor padded"
            )


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


def _real(values: Any, mask: Any, row: int) -> Any:
    """The row's real tokens, which lie on the last axis but one; None where there are no values."""
    return None if values is None or mask is None else values[row : row + 1][..., mask[row], :]


def _real_mask(mask: Any, row: int) -> Any:
    return None if mask is None else mask[row][mask[row]][None]


def _padded(parts: Sequence[Any], width: int | None = None) -> Any:
    """Batches of one as a single batch, with zeros behind the shorter; None where there are no values."""
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
