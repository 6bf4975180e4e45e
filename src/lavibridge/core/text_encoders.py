"""How a published pipeline reads prompts: a vision family describes it, `language/parts/native.py` does it.

sequence   ((clip_l, clip_g), (t5,))   groups stand one behind the other, a group's encoders side by side
pooled     (clip_l, clip_g)            their pooled vectors, side by side
"""

from typing import Annotated

from pydantic import Field

from lavibridge.core.config import Config


class TextEncoder(Config):
    """One text encoder of a pipeline, and what the pipeline takes of it."""

    folder: str = "text_encoder"
    """Sub-folder of the encoder, and its name in model_index.json."""
    tokenizer: str = "tokenizer"
    """Sub-folder of its tokenizer."""
    layer: int = Field(default=-1, le=-1)
    """Hidden states that become tokens: -1 is the encoder's output, -2 the input of its last layer."""
    max_tokens: int | None = Field(default=None, ge=2)
    """Length of a prompt, special tokens counted. None: the limit that the tokenizer states."""
    has_sequence_length: bool = False
    """Whether the pipeline's argument `max_sequence_length` sets the length."""
    masks_padding: bool = False
    """Whether the encoder and the denoiser get a mask of the padding, so that it changes nothing."""


class PipelineTextEncoders(Config):
    """All text encoders of a pipeline."""

    sequence: Annotated[tuple[tuple[TextEncoder, ...], ...], Field(min_length=1)]
    """Encoders whose tokens the denoiser reads. Zeros fill groups up to the width of its tokens."""
    pooled: tuple[TextEncoder, ...] = ()
    """Encoders whose pooled vectors, side by side, the denoiser takes beside the tokens."""
    instruction: str = ""
    """Text before every prompt but a negative one. Its tokens are cut off, all but the first and the last."""
    normalizes: bool = False
    """Whether the pipeline makes prompts lower case and strips them."""
    optional: tuple[str, ...] = ()
    """Folders of encoders that a pipeline may lack. Zeros stand in the place of their tokens."""

    def limited(self, max_sequence_length: int) -> "PipelineTextEncoders":
        """The same with that length for the encoders whose length is the pipeline's argument."""

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
