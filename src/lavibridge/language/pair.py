"""Two language models side by side: one goes through the connector, the other's tokens are kept beside it.

    prompts --source--> features --connector--> tokens --\
    prompts --passthrough (untouched)--------------> tokens --[passthrough ; connected]--> vision model

As ELLA is used with CLIP (Hu et al. 2024, arXiv 2403.05135): words that a community model was taught under
CLIP go on to work. What stands beside must be as wide as the vision model's tokens, as its own encoder is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from lavibridge.core import registry
from lavibridge.core.config import validate
from lavibridge.core.contracts import LAST_LAYER, Reading, TextFeatures
from lavibridge.core.errors import RecipeError
from lavibridge.core.sources import RANDOM
from lavibridge.language.base import LanguageModel


class Pair(LanguageModel):
    """LoRA, limits and read-outs are those of `source`; the pooled vector is that of `passthrough`."""

    class Config(LanguageModel.Config):
        """The options of the model that goes through the connector, and the other one's."""

        of: str | None = None
        """Kind of `source`; found out where it is not given."""
        passthrough: str | Mapping[str, Any] = RANDOM
        """The model beside it: a source, or a mapping of its options. It is padded in view by default, as
        pipelines read their own encoder."""

    config: Config
    lora_targets = ()

    def __init__(self, config: Config, device: torch.device | None = None) -> None:
        super().__init__()
        self.config = config
        inner = LanguageModel.Config.model_validate(config.model_dump(exclude={"of", "passthrough"}))
        kind = config.of or (
            "llama" if config.source == RANDOM else registry.detect_kind("language", config.source)
        )
        self.inner: LanguageModel = registry.load_kind("language", kind)(inner, device)
        self.other = _passthrough(config.passthrough, device)
        self.lora_targets = self.inner.lora_targets
        self.backbone = self.inner.backbone
        self.max_tokens = self.inner.max_tokens
        self.spec = replace(self.inner.spec, pooled=self.other.spec.pooled, passthrough=self.other.spec.width)

    @classmethod
    def accepts(cls, source: str, revision: str | None = None) -> bool:
        """Never: a pair is asked for by name."""
        return False

    def encode(self, prompts: Sequence[str], reading: Reading = LAST_LAYER) -> TextFeatures:
        """Features of the one, with the normed output of the other beside them."""
        kept = self.other.encode(prompts)
        return replace(
            self.inner.encode(prompts, reading),
            pooled=kept.pooled,
            passthrough_tokens=kept.hidden[:, -1],
            passthrough_mask=kept.mask,
        )

    def enable_gradient_checkpointing(self) -> None:
        """Of the model that goes through the connector: nothing is learnt through the other."""
        self.inner.enable_gradient_checkpointing()

    def unread(self, reading: Reading) -> list[nn.Module]:
        """Of the model that goes through the connector, whose backbone is the pair's."""
        return self.inner.unread(reading)

    def compile_blocks(self, backend: str) -> None:
        """Of both."""
        self.inner.compile_blocks(backend)
        self.other.compile_blocks(backend)

    def set_attention_backend(self, kernel: str) -> None:
        """Of both."""
        self.inner.set_attention_backend(kernel)
        self.other.set_attention_backend(kernel)

    def spans(self, prompt: str) -> list[tuple[int, int]]:
        """Of the model that goes through the connector: what stands beside it is not weighted."""
        return self.inner.spans(prompt)

    def count_tokens(self, prompts: Sequence[str]) -> tuple[list[int], list[int]]:
        """Of the model that goes through the connector."""
        return self.inner.count_tokens(prompts)

    def identity(self) -> str:
        """Of both."""
        return f"{self.inner.identity()} beside {self.other.identity()}"


def _passthrough(choice: str | Mapping[str, Any], device: torch.device | None) -> LanguageModel:
    options = {"source": choice} if isinstance(choice, str) else dict(choice)
    source = options.get("source")
    if not isinstance(source, str):
        raise RecipeError("language.passthrough.source: give a folder, a shipped model's name or a hub id")
    kind = options.pop("kind", None) or (
        "clip" if source == RANDOM else registry.detect_kind("language", source, options.get("revision"))
    )
    family = registry.load_kind("language", kind)
    config = validate(family.Config, {"see_padding": True, **options}, "language.passthrough")
    model: LanguageModel = family(config, device)
    return model
