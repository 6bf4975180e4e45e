"""Two language models side by side: one feeds the connector, the other's tokens bypass it.

    prompts --source--> features --connector--> tokens --\
    prompts --passthrough (untouched)--------------> tokens --[passthrough ; connected]--> vision model

ELLA is used with CLIP like this (Hu et al. 2024, arXiv 2403.05135): words that a community model learned
under CLIP keep working. The passthrough tokens must be as wide as those of the vision model's
own encoder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from lavibridge.core import registry
from lavibridge.core.config import validate_config
from lavibridge.core.contracts import LAST_LAYER, ReadingSpec, TextFeatures
from lavibridge.core.errors import RecipeError
from lavibridge.core.sources import RANDOM
from lavibridge.language.base import LanguageModel
from lavibridge.language.parts.proxy import ProxySettings


class Pair(LanguageModel):
    """LoRA, limits and read-outs are those of `source`; the pooled vector comes from `passthrough`."""

    class Config(LanguageModel.Config):
        """The options of the model that feeds the connector, and those of the passthrough model."""

        of: str | None = None
        """Kind of `source`; detected by default."""
        passthrough: str | Mapping[str, Any] = RANDOM
        """The passthrough model: a source, or a mapping of its options. It sees padding by default, as a
        pipeline's own encoder does."""

    config: Config
    lora_targets: tuple[str, ...] = ()

    def __init__(self, config: Config, device: torch.device | None = None) -> None:
        super().__init__()
        family, inner = _inner(config)
        self.inner: LanguageModel = family(inner, device)
        self.config = config.model_copy(update={"max_tokens": self.inner.max_tokens})
        self.other = _passthrough(config.passthrough, device)
        self.lora_targets = self.inner.lora_targets
        self.backbone = self.inner.backbone
        self.placement = self.inner.placement
        self.max_tokens = self.inner.max_tokens
        self.spec = replace(self.inner.spec, pooled=self.other.spec.pooled, passthrough=self.other.spec.width)

    @classmethod
    def accepts(cls, source: str, revision: str | None = None) -> bool:
        """Never: a recipe selects a pair by its kind."""
        return False

    @classmethod
    def default_max_tokens(cls, config: LanguageModel.Config) -> int:
        """Return the limit of `source`."""
        assert isinstance(config, Pair.Config)
        family, inner = _inner(config)
        return family.default_max_tokens(inner)

    def use_proxy(self, settings: ProxySettings | None) -> None:
        """Let a remote model revise the prompts that both models read."""
        super().use_proxy(settings)
        self.inner.use_proxy(settings)

    def encode(self, prompts: Sequence[str], reading: ReadingSpec = LAST_LAYER) -> TextFeatures:
        """Features of `source`, with the normed output of the passthrough model."""
        self.load()
        kept = self.other.encode(prompts)
        return replace(
            self.inner.encode(prompts, reading),
            pooled=kept.pooled,
            passthrough_tokens=kept.hidden[:, -1],
            passthrough_mask=kept.mask,
        )

    def sequence_lengths(self, prompts: Sequence[str]) -> list[int]:
        """The number of tokens that both models compute."""
        lengths = (self.inner.sequence_lengths(prompts), self.other.sequence_lengths(prompts))
        return [sum(both) for both in zip(*lengths, strict=True)]

    def enable_gradient_checkpointing(self) -> None:
        """Recompute the blocks of `source`; no gradient passes through the passthrough model."""
        self.inner.enable_gradient_checkpointing()

    def unread(self, reading: ReadingSpec) -> list[nn.Module]:
        """The unread blocks of `source`, whose backbone is the pair's."""
        return self.inner.unread(reading)

    def compile_blocks(self, backend: str) -> None:
        """Compile the blocks of both models."""
        self.inner.compile_blocks(backend)
        self.other.compile_blocks(backend)

    def set_attention_backend(self, kernel: str) -> None:
        """Choose the kernel of both models."""
        self.inner.set_attention_backend(kernel)
        self.other.set_attention_backend(kernel)

    def spans(self, prompt: str) -> list[tuple[int, int]]:
        """Spans of the tokens of `source`; word weights do not apply to passthrough tokens."""
        return self.inner.spans(prompt)

    def count_tokens(self, prompts: Sequence[str]) -> tuple[list[int], list[int]]:
        """Token counts of `source`."""
        return self.inner.count_tokens(prompts)

    def identity(self) -> str:
        """The identities of both models; that of `source` includes the proxy."""
        if self.unloaded_identity is not None:
            return self.unloaded_identity
        return f"{self.inner.identity()} beside {self.other.identity()}"


def _inner(config: Pair.Config) -> tuple[type[LanguageModel], LanguageModel.Config]:
    """Return the family and the options of the model that feeds the connector."""
    inner = LanguageModel.Config.model_validate(config.model_dump(exclude={"of", "passthrough", "kind"}))
    kind = config.of or (
        "llama" if config.source == RANDOM else registry.detect_kind("language", config.source)
    )
    return registry.load_kind("language", kind), inner


def _passthrough(choice: str | Mapping[str, Any], device: torch.device | None) -> LanguageModel:
    options = {"source": choice} if isinstance(choice, str) else dict(choice)
    source = options.get("source")
    if not isinstance(source, str):
        raise RecipeError("language.passthrough.source: give a folder, a shipped model's name or a hub id")
    kind = options.pop("kind", None) or (
        "clip" if source == RANDOM else registry.detect_kind("language", source, options.get("revision"))
    )
    family = registry.load_kind("language", kind)
    config = validate_config(
        family.Config, {"see_padding": True, "max_tokens": None, **options}, "language.passthrough"
    )
    model: LanguageModel = family(config, device)
    return model
