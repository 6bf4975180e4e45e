"""Describes how a published pipeline encodes prompts; `language/parts/native.py` encodes them that way.

sequence   ((clip_l, clip_g), (t5,))   concatenates groups along tokens, a group's encoders along features
pooled     (clip_l, clip_g)            concatenates their pooled vectors
"""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from lavibridge.core.config import Config

PROMPT = "{prompt}"
"""Stands for the prompt in a template."""


class ChatTemplate(Config):
    """A prompt as the user's message in the chat template of the encoder's own tokenizer."""

    system: str | None = None
    """The system's message before it."""
    add_generation_prompt: bool = True
    """Whether the text ends where the model's answer would begin."""
    enable_thinking: bool | None = None
    """Qwen3's argument: False adds an empty thought to the answer. None: the template takes no argument."""
    has_typed_content: bool = False
    """Whether the content of a message is a list of parts with a type, as in models that also read images."""
    add_special_tokens: bool = True
    """Whether the tokenizer adds its special tokens to the text that the template makes."""


class TextEncoder(Config):
    """One text encoder of a pipeline, and how the pipeline uses it."""

    folder: str = "text_encoder"
    """Sub-folder of the encoder, and its name in model_index.json."""
    tokenizer: str = "tokenizer"
    """Sub-folder of its tokenizer."""
    layers: Annotated[tuple[int, ...], Field(min_length=1)] = (-1,)
    """Hidden states that become tokens, concatenated along features: 0 is the embeddings, -1 the encoder's
    output, -2 the input of its last layer."""
    max_tokens: int | None = Field(default=None, ge=2)
    """Length of a prompt, including special tokens. None: the tokenizer's own limit."""
    has_sequence_length: bool = False
    """Whether the pipeline's argument `max_sequence_length` sets the length."""
    padding: Literal["seen", "unattended", "zeros", "masked"] = "seen"
    """What happens to the padding. `seen`: encoder and denoiser read it like a prompt. `unattended`: the
    encoder masks it, and the denoiser reads its features. `zeros`: as `unattended`, with zeros for its
    features. `masked`: neither reads it."""
    padding_side: Literal["right", "left"] = "right"
    """The side of a prompt that padding is on."""
    padding_multiple: int = Field(default=1, ge=1)
    """With `masked`: encoder and denoiser read padding up to the next multiple of this length."""
    read_padding: int = Field(default=0, ge=0)
    """With `masked`: number of padding tokens that the denoiser reads all the same."""
    template: str = PROMPT
    """Text around every prompt, with {prompt} in it."""
    chat: ChatTemplate | None = None
    """The chat message that the prompt is instead, if it is one."""
    removed_tokens: int = Field(default=0, ge=0)
    """Number of tokens at the start, such as a template's, that the denoiser does not read."""

    @field_validator("template")
    @classmethod
    def _has_prompt(cls, template: str) -> str:
        if template.count(PROMPT) != 1:
            raise ValueError(f"a template has {PROMPT} once, found {template!r}")
        return template


class PipelineTextEncoders(Config):
    """All text encoders of a pipeline."""

    sequence: Annotated[tuple[tuple[TextEncoder, ...], ...], Field(min_length=1)]
    """Encoders whose tokens the denoiser reads. Groups are padded with zeros to the width of its tokens."""
    pooled: tuple[TextEncoder, ...] = ()
    """Encoders whose concatenated pooled vectors the denoiser takes in addition to the tokens."""
    instruction: str = ""
    """Text before every prompt except negative ones."""
    keeps_instruction: bool = False
    """Whether the denoiser reads the instruction. If not, only its first and last token remain."""
    normalizes: bool = False
    """Whether the pipeline makes prompts lower case and strips them."""
    optional: tuple[str, ...] = ()
    """Folders of encoders that a pipeline may lack. Zeros replace their tokens."""

    def limited(self, max_sequence_length: int) -> "PipelineTextEncoders":
        """Return a copy with this length for the encoders that have `max_sequence_length`."""
        return self.with_argument(max_tokens=max_sequence_length)

    def with_argument(self, **values: Any) -> "PipelineTextEncoders":
        """Return a copy with these values in the encoders that take arguments of the pipeline's call."""

        def changed(encoder: TextEncoder) -> TextEncoder:
            return encoder.model_copy(update=values if encoder.has_sequence_length else {})

        return self.model_copy(
            update={
                "sequence": tuple(tuple(changed(each) for each in group) for group in self.sequence),
                "pooled": tuple(changed(each) for each in self.pooled),
            }
        )

    @property
    def encoders(self) -> tuple[TextEncoder, ...]:
        """Every encoder once."""
        return tuple(dict.fromkeys([*(one for group in self.sequence for one in group), *self.pooled]))
