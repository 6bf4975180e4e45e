"""The contract of a language model: prompts in, features of their tokens out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field
from torch import nn

from lavibridge.core.config import Changeable
from lavibridge.core.config import Config as BaseConfig
from lavibridge.core.contracts import LAST_LAYER, Reading, TextFeatures, TextSpec
from lavibridge.core.identity import model_identity
from lavibridge.core.low_rank import FoldedLora


class LanguageModel(nn.Module, ABC):
    """A frozen language model; ``backbone`` is the network that takes LoRA."""

    class Config(BaseConfig):
        """Which language model, and how prompts go in."""

        source: Changeable[str]
        """A folder, a shipped miniature's name, a hub id, or `random` (a toy of the family, offline)."""
        max_tokens: int | None = Field(default=None, ge=2)
        """Prompts are cut to so many tokens, special ones counted. None: 77, or the positions there are."""
        see_padding: bool | Literal["connector"] = False
        """Pad prompts to exactly max_tokens and mask nothing: the released U-Net weights need this. With
        `connector` the language model is masked and only what follows sees the padding, as published ELLA."""
        revision: Changeable[str | None] = None
        """Branch, tag or commit of a hub id."""
        dtype: Literal["float32", "bfloat16", "float16"] = "float32"
        """Number format of the frozen weights; LoRA weights and features are float32."""
        quantize: Literal["8bit", "4bit"] | None = None
        """Load the frozen weights in 8 or 4 bits (needs the extra `quantize`); LoRA on top stays float32."""
        template: str | None = None
        """Text around every prompt, with {prompt} in it, such as an instruction or a chat template. Features
        of what stands before the prompt are left out."""

    lora_targets: tuple[str, ...]
    """Ends of the names of the layers that take LoRA, as published."""

    config: "LanguageModel.Config"
    max_tokens: int
    """The limit in force: the configured one, or the default for this model."""
    spec: TextSpec
    backbone: nn.Module
    reads_negative_prompts_differently: ClassVar[bool] = False
    """Whether `encode_negative` differs from `encode`."""
    folded: tuple[FoldedLora, ...] = ()
    """LoRA files that are part of the frozen weights (`read_lora_file`)."""

    @classmethod
    @abstractmethod
    def accepts(cls, source: str, revision: str | None = None) -> bool:
        """Whether this family reads the model at ``source``; looks at its configuration only."""

    @abstractmethod
    def encode(self, prompts: Sequence[str], reading: Reading = LAST_LAYER) -> TextFeatures:
        """Features of prompts (the empty prompt is allowed), as a connector asks for them.

        Without ``see_padding`` a prompt's features do not depend on the prompts beside it. Raises ModelError
        for what the model cannot be asked.
        """

    def encode_negative(self, prompts: Sequence[str], reading: Reading = LAST_LAYER) -> TextFeatures:
        """Features of negative prompts. Most models read them as any prompt; some pipelines do not."""
        return self.encode(prompts, reading)

    @abstractmethod
    def unread(self, reading: Reading) -> list[nn.Module]:
        """Parts of the backbone on which the read layers do not depend, as far as the model knows them."""

    @abstractmethod
    def enable_gradient_checkpointing(self) -> None:
        """From now on compute the blocks once more in the backward pass, instead of keeping what they gave.

        The gradients stay the same. Raises ModelError where the model has no such blocks.
        """

    @abstractmethod
    def compile_blocks(self, backend: str) -> None:
        """Have `torch.compile` make faster code of the repeated blocks, when they are first called."""

    @abstractmethod
    def set_attention_backend(self, kernel: str) -> None:
        """Compute attention by `sdpa`, `eager` or `flash`; ModelError where the model cannot."""

    @abstractmethod
    def spans(self, prompt: str) -> list[tuple[int, int]]:
        """For each token whose features `encode` gives: the characters of the prompt that it stands for.

        A token that is not the prompt's own has none: (0, 0).
        """

    @abstractmethod
    def count_tokens(self, prompts: Sequence[str]) -> tuple[list[int], list[int]]:
        """For each prompt: how many tokens are used, and how many are cut off."""

    def identity(self) -> str:
        """What its features depend on beside the prompt: files and options, not where they lie."""
        return model_identity(self, self.config, *(each.sha256 for each in self.folded))
