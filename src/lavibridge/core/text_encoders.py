"""Describes how a published pipeline encodes prompts; `language/parts/native.py` encodes them that way.

sequence   ((clip_l, clip_g), (t5,))   concatenates groups along tokens, a group's encoders along features
pooled     (clip_l, clip_g)            concatenates their pooled vectors
"""

from typing import Annotated

from pydantic import Field

from lavibridge.core.config import Config


class TextEncoder(Config):
    """One text encoder of a pipeline, and how the pipeline uses it."""

    folder: str = "text_encoder"
    """Sub-folder of the encoder, and its name in model_index.json."""
    tokenizer: str = "tokenizer"
    """Sub-folder of its tokenizer."""
    layer: int = Field(default=-1, le=-1)
    """Hidden states that become tokens: -1 is the encoder's output, -2 the input of its last layer."""
    max_tokens: int | None = Field(default=None, ge=2)
    """Length of a prompt, including special tokens. None: the tokenizer's own limit."""
    has_sequence_length: bool = False
    """Whether the pipeline's argument `max_sequence_length` sets the length."""
    masks_padding: bool = False
    """Whether the encoder and the denoiser get a mask of the padding, so that it has no effect."""


class PipelineTextEncoders(Config):
    """All text encoders of a pipeline."""

    sequence: Annotated[tuple[tuple[TextEncoder, ...], ...], Field(min_length=1)]
    """Encoders whose tokens the denoiser reads. Groups are padded with zeros to the width of its tokens."""
    pooled: tuple[TextEncoder, ...] = ()
    """Encoders whose concatenated pooled vectors the denoiser takes in addition to the tokens."""
    instruction: str = ""
    """Text before every prompt except negative ones. All its tokens but the first and last are removed."""
    normalizes: bool = False
    """Whether the pipeline makes prompts lower case and strips them."""
    optional: tuple[str, ...] = ()
    """Folders of encoders that a pipeline may lack. Zeros replace their tokens."""

    def limited(self, max_sequence_length: int) -> "PipelineTextEncoders":
        """Return a copy with this length for the encoders that have `max_sequence_length`."""

        def limited(encoder: TextEncoder) -> TextEncoder:
            changed = {"max_tokens": max_sequence_length} if encoder.has_sequence_length else {}
            return encoder.model_copy(update=changed)

        return self.model_copy(
            update={
                "sequence": tuple(tuple(limited(each) for each in group) for group in self.sequence),
                "pooled": tuple(limited(each) for each in self.pooled),
            }
        )

    @property
    def encoders(self) -> tuple[TextEncoder, ...]:
        """Every encoder once."""
        return tuple(dict.fromkeys([*(one for group in self.sequence for one in group), *self.pooled]))
