"""Every other text model of Transformers, read by what its configuration and its class state.

Decoder-only models, hybrids of attention and linear attention, encoders, and the text part of models that
also read images or sound. Decoder-only models are read with norm_mean, others with their last layer. LoRA
goes to all linear layers of attention.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from lavibridge.core.contracts import LAST_LAYER, ReadingSpec, TextFeatures
from lavibridge.core.errors import ModelError
from lavibridge.core.log import console
from lavibridge.core.sources import RANDOM, find_gguf
from lavibridge.language.base import LanguageModel
from lavibridge.language.hf import TransformersModel
from lavibridge.language.parts.architecture import (
    Architecture,
    attention_layers,
    find_text_architecture,
    forward_inputs,
    is_causal,
    position_table,
)
from lavibridge.language.parts.loading import load_language_config
from lavibridge.language.parts.toys import TOY_DECODER

PROBE = "a red cat"
PROBE_TOKENS = 160
"""Length to which padding extends the probe: beyond the window of local attention in most encoders."""
EXACT, COARSE = 1e-4, 0.1
"""Largest relative change of features by padding: of float32 weights, and of half precision or quantised
ones, which change that much by rounding."""


class AutoText(TransformersModel):
    """A text model that AutoModel loads and that has no file here; checked for padding as it loads."""

    models = {  # noqa: RUF012 - a constant of the class
        "smollm3": "SmolLM3Model",
        "qwen3_5": "Qwen3_5TextModel",
        "qwen3_vl": "Qwen3VLTextModel",
        "qwen2_5_vl": "Qwen2_5_VLTextModel",
        "gemma3": "Gemma3TextModel",
        "gemma4": "Gemma4TextModel",
        "mistral3": "MistralModel",
        "glm4": "Glm4Model",
        "phi3": "Phi3Model",
        "gpt_oss": "GptOssModel",
        "modernbert": "ModernBertModel",
    }
    """The models that it is tested with; it reads every other text model of AutoModel too."""
    is_fallback = True
    lora_targets: tuple[str, ...] = ()  # found in the model
    pads = ("pad", "eos", "unk")
    toy_template = "$A"
    toy = TOY_DECODER

    def __init__(self, config: LanguageModel.Config, device: torch.device | None = None) -> None:
        super().__init__(config, device)
        settings, inputs = self.backbone.config, forward_inputs(self.backbone)
        table = position_table(self.backbone)
        self.takes_mask = "attention_mask" in inputs
        self.takes_positions = "position_ids" in inputs
        self.call_options = {"use_cache": False} if "use_cache" in inputs else {}
        # A model with vectors of its own in every layer looks them up by token.
        self.takes_queries = "inputs_embeds" in inputs and not getattr(
            settings, "hidden_size_per_layer_input", None
        )
        self.learned_positions = table is not None
        if table is not None and table.padding_idx is not None:  # as RoBERTa counts
            self.first_position = table.padding_idx + 1
            self._check_limit(table.num_embeddings - self.first_position)
        self.lora_targets = attention_layers(self.backbone, settings)
        self.spec = replace(self.spec, read="norm_mean" if is_causal(settings) else "last")
        self.reads_singly = self.backbone.device.type != "meta" and not self._is_padding_harmless()

    @classmethod
    def accepts(cls, source: str, revision: str | None = None) -> bool:
        """Whether AutoModel has a class that reads text. Raises ModelError with the reason if it has none."""
        if source == RANDOM:
            return False
        cls._architecture(source, revision)
        return True

    def encode(self, prompts: Sequence[str], reading: ReadingSpec = LAST_LAYER) -> TextFeatures:
        """Features of prompts, read one at a time if padding would change them."""
        if reading.context_free and self.learned_positions and not self.takes_positions:
            raise ModelError(
                f"the connector reads each token alone, but the {type(self.backbone).__name__} of "
                f"'{self.config.source}' takes no positions: choose another connector"
            )
        if not self.reads_singly or len(prompts) < 2:
            return super().encode(prompts, reading)
        read = super().encode
        return TextFeatures.pad([read([prompt], reading) for prompt in prompts])

    @classmethod
    def _architecture(cls, source: str, revision: str | None) -> Architecture:
        if find_gguf(source, revision) is not None:
            description, _ = load_language_config(source, revision)
            raise ModelError(
                f"'{source}' is a GGUF file of a '{description.get('model_type')}', which no language family "
                "reads from GGUF: take the model's folder with safetensors"
            )
        return find_text_architecture(source, load_language_config(source, revision)[0])

    @classmethod
    def _is_decoder(cls, settings: Any) -> bool:
        return is_causal(settings)

    def _run(self, layers: list[int], is_whole: bool = False, **inputs: Any) -> Any:
        if not self.takes_mask:
            inputs.pop("attention_mask", None)
        return super()._run(layers, is_whole, **inputs)

    def _check_limit(self, most: int) -> None:
        if self.max_tokens > most:
            raise ModelError(
                f"max_tokens is {self.max_tokens}, but {self.config.source} has positions for {most} tokens: "
                "lower max_tokens"
            )

    @torch.no_grad()
    def _is_padding_harmless(self) -> bool:
        """Compare a prompt's features with those of the same prompt and padding that a mask hides.

        Raises ModelError if padding changes them and the connector is to see it.
        """
        if self.config.see_padding is True:  # padding is part of the prompt
            return True
        tokens = self.tokens([PROBE])
        device = self.backbone.get_input_embeddings().weight.device
        most = self.max_tokens + len(self.tokens.before)
        ids = tokens.ids[:, tokens.mask[0]][:, : most - 1].to(device)
        length = min(max(PROBE_TOKENS, ids.shape[1] + 1), most)
        padded = ids.new_full((1, length), self.tokens.pad_id)
        padded[:, : ids.shape[1]] = ids
        mask = torch.arange(length, device=device)[None] < ids.shape[1]
        last = [self.spec.layers - 1]
        alone, _ = self._run(last, input_ids=ids, attention_mask=torch.ones_like(ids))
        beside, _ = self._run(last, input_ids=padded, attention_mask=mask.long())
        change = float((beside[:, :, : ids.shape[1]] - alone).norm() / alone.norm())
        is_exact = self.config.dtype == "float32" and self.config.quantize is None
        if change <= (EXACT if is_exact else COARSE):
            return True
        name = type(self.backbone).__name__
        if self.config.see_padding == "connector":
            raise ModelError(
                f"padding changes the features of '{self.config.source}' ({name}) by {change:.1%}, so the "
                "connector cannot see it: set language.see_padding to false, or to true to pad the model too"
            )
        console.print(
            f"note: padding changes the features of '{self.config.source}' ({name}) by {change:.1%}, so "
            "prompts are read one at a time"
        )
        return False
