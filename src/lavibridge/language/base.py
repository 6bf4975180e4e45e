"""The contract of a language model: prompts in, features of their tokens out."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from lavibridge.core.config import Changeable
from lavibridge.core.config import Config as BaseConfig
from lavibridge.core.contracts import LAST_LAYER, ReadingSpec, TextFeatures, TextSpec
from lavibridge.core.errors import ModelError
from lavibridge.core.identity import model_identity
from lavibridge.core.placement import Placement, Quantization
from lavibridge.core.weight_changes import FoldedLora
from lavibridge.language.parts.proxy import ProxySettings, revise_prompts
from lavibridge.language.parts.unloading import LOADING, fill_weights, free_weights

DEFAULT_TOKENS = 77
"""Number of tokens that the published U-Nets were trained with."""
CPU_TOKENS, GPU_TOKENS = 512, 4096
"""Tokens in a batch of `encode_many`, padding included; a CPU is fastest while its cache holds a batch."""


class LanguageModel(nn.Module, ABC):
    """A frozen language model; ``backbone`` is the network that takes LoRA."""

    class Config(BaseConfig):
        """Which language model, and how prompts go in."""

        source: Changeable[str]
        """A folder, a GGUF file, a hub id, the name of a shipped or packaged model (mini-llama, minilm), or
        `random` (a toy of the family, offline)."""
        max_tokens: Annotated[int, Field(ge=2)] | Literal["auto"] | None = "auto"
        """The longest prompt in tokens, special ones included; the rest is cut off. `auto`: 256 for a
        decoder-only model, an encoder's own limit but at most 512, and 77 with see_padding; a saved bridge
        and a run's recipe state the number. None: 77. In each case fewer if the model has fewer positions."""
        see_padding: bool | Literal["connector"] = False
        """Pad prompts to exactly max_tokens and mask nothing, as the released U-Net weights need. With
        `connector` the language model ignores the padding and only the connector sees it, as in the published
        ELLA."""
        revision: Changeable[str | None] = None
        """Branch, tag or commit of a hub id."""
        dtype: Literal["float32", "bfloat16", "float16"] = "float32"
        """Number format of the frozen weights; LoRA weights and features are float32. bfloat16 changes
        features by about 1 % (median relative error 0.4 to 1.1 %, mini-llama and MiniLM, 128 captions). It
        saves memory everywhere, and time on processors that compute in it."""
        quantize: Quantization | None = None
        """Load the frozen weights in 8 or 4 bits (needs the extra `quantize`); LoRA on top stays float32."""
        template: str | None = None
        """Text around every prompt, with {prompt} in it, such as an instruction or a chat template. Features
        of the text before {prompt} are left out."""
        proxy: ProxySettings | None = None
        """A closed or remote model that revises every prompt before this model reads it."""

    lora_targets: tuple[str, ...]
    """Suffixes of the names of the layers that take LoRA, as published."""

    config: "LanguageModel.Config"
    max_tokens: int
    """The limit in force: the configured one, or the default for this model."""
    spec: TextSpec
    backbone: nn.Module
    placement: Placement = Placement()
    """Where the frozen weights lie, and in which form."""
    is_fallback: ClassVar[bool] = False
    """Whether the family is asked only about models that no other family accepts."""
    reads_negative_prompts_differently: ClassVar[bool] = False
    """Whether `encode_negative` differs from `encode`."""
    folded: tuple[FoldedLora, ...] = ()
    """LoRA files that were merged into the frozen weights (`read_lora_file`)."""
    unloaded_identity: str | None = None
    """The model's identity while its weights are unloaded; None while they are in memory."""

    @classmethod
    @abstractmethod
    def accepts(cls, source: str, revision: str | None = None) -> bool:
        """Whether this family can load the model at ``source``; reads its configuration only."""

    def revise(self, prompts: Sequence[str]) -> list[str]:
        """Return the texts to encode for a user's prompts: the proxy's revisions, or the prompts themselves.

        The empty prompt stays empty, and a model on the meta device keeps all prompts. Raises
        RemoteModelError if the proxy has no revision of a prompt and cannot get one.
        """
        if self.config.proxy is None or next(chain(self.parameters(), self.buffers())).is_meta:
            return list(prompts)
        return revise_prompts(self.config.proxy, prompts)

    def use_proxy(self, settings: ProxySettings | None) -> None:
        """Let a remote model revise prompts from now on, or none."""
        self.config = self.config.model_copy(update={"proxy": settings})

    @property
    def can_unload(self) -> bool:
        """Whether the source holds all weights that are in memory: there is no LoRA, and no sharding."""
        weights = dict(self.named_parameters())
        return bool(weights) and not (
            self.folded
            or any(weight.requires_grad or ".lora_" in name for name, weight in weights.items())
            or any(type(weight.data).__name__ == "DTensor" for weight in weights.values())
        )

    def unload(self) -> int:
        """Free the memory of the weights until a prompt is encoded; returns the freed bytes.

        Raises ModelError if the source does not hold the weights.
        """
        with LOADING:
            if self.unloaded_identity is not None:
                return 0
            if not self.can_unload:
                raise ModelError(
                    f"cannot unload '{self.config.source}', which has LoRA or is sharded: its source lacks "
                    "the weights that are in memory"
                )
            self.unloaded_identity = self.identity()
            return free_weights(self)

    def load(self) -> None:
        """Load unloaded weights again, from the model's source; every encoding begins with this.

        Raises ModelError if the source is gone, or if it has changed since.
        """
        with LOADING:
            if self.unloaded_identity is None:
                return
            try:
                with torch.random.fork_rng(devices=[]):
                    loaded = type(self)(self.config)
            except ModelError as error:
                raise ModelError(f"cannot load the unloaded language model again: {error}") from error
            if loaded.identity() != self.unloaded_identity:
                raise ModelError(
                    f"the language model '{self.config.source}' has changed since its weights were unloaded: "
                    "restore its files"
                )
            fill_weights(self, loaded)
            self.unloaded_identity = None

    @classmethod
    def default_max_tokens(cls, config: "LanguageModel.Config") -> int:
        """Return the limit in force for ``config``, of which it may leave the choice to the model.

        Reads the model's configuration only. Raises ModelError if that cannot be read.
        """
        return config.max_tokens if isinstance(config.max_tokens, int) else DEFAULT_TOKENS

    @abstractmethod
    def encode(self, prompts: Sequence[str], reading: ReadingSpec = LAST_LAYER) -> TextFeatures:
        """Return the features of prompts, which may be empty, in the layers that ``reading`` names.

        Without ``see_padding`` a prompt's features do not depend on the other prompts. Raises ModelError if
        the model cannot provide what ``reading`` requests.
        """

    def encode_negative(self, prompts: Sequence[str], reading: ReadingSpec = LAST_LAYER) -> TextFeatures:
        """Return the features of negative prompts, which some pipelines encode differently from others."""
        return self.encode(prompts, reading)

    def encode_many(
        self, prompts: Sequence[str], reading: ReadingSpec = LAST_LAYER
    ) -> Iterator[tuple[str, TextFeatures]]:
        """Yield each distinct prompt with its features, a batch of one without padding.

        The longest prompts come first: prompts of like length share a batch of a limited number of tokens, so
        that little padding is computed. Values differ from those of ``encode`` by rounding only. Raises
        ModelError as ``encode`` does.
        """
        distinct = list(dict.fromkeys(prompts))
        if not distinct:
            return
        self.load()
        lengths = dict(zip(distinct, self.sequence_lengths(distinct), strict=True))
        ordered = sorted(distinct, key=lambda prompt: (-lengths[prompt], prompt))
        limit = CPU_TOKENS if next(chain(self.parameters(), self.buffers())).is_cpu else GPU_TOKENS
        start = 0
        while start < len(ordered):
            batch = ordered[start : start + max(1, limit // lengths[ordered[start]])]
            yield from zip(batch, self.encode(batch, reading).split(), strict=True)
            start += len(batch)

    @abstractmethod
    def sequence_lengths(self, prompts: Sequence[str]) -> list[int]:
        """Number of tokens that the model computes for each prompt alone, its template included."""

    @abstractmethod
    def unread(self, reading: ReadingSpec) -> list[nn.Module]:
        """Return the parts of the backbone that do not affect the layers read, as far as they are known."""

    @abstractmethod
    def enable_gradient_checkpointing(self) -> None:
        """Recompute the blocks in the backward pass from now on, instead of storing their activations.

        The gradients stay the same. Raises ModelError if the model has no such blocks.
        """

    @abstractmethod
    def compile_blocks(self, backend: str) -> None:
        """Compile the repeated blocks with `torch.compile`, each when it is first called."""

    @abstractmethod
    def set_attention_backend(self, kernel: str) -> None:
        """Compute attention with `sdpa`, `eager` or `flash`. Raises ModelError if the model cannot."""

    @abstractmethod
    def spans(self, prompt: str) -> list[tuple[int, int]]:
        """Return the start and end characters in the prompt of each token that `encode` returns features of.

        Tokens that are not part of the prompt have (0, 0).
        """

    @abstractmethod
    def count_tokens(self, prompts: Sequence[str]) -> tuple[list[int], list[int]]:
        """Return, for each prompt, the number of tokens used and the number cut off."""

    def identity(self) -> str:
        """Return everything but the prompt that affects its features: files and options, not their place."""
        if self.unloaded_identity is not None:
            return self.unloaded_identity
        proxy = [] if self.config.proxy is None else [f"proxy {self.config.proxy.identity()}"]
        return model_identity(self, self.config, *(each.identity for each in self.folded), *proxy)
