"""Language models of the Transformers library; a family is a subclass that holds data only.

    prompts -> token ids (cut, padded on the right) -> backbone up to the highest layer read -> float32 layers

Only safetensors and GGUF files are loaded, and no code from a folder ever runs.
"""

import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
import transformers
from jaxtyping import Float, Int
from torch import Tensor, nn

from lavibridge.core.contracts import LAST_LAYER, ReadingSpec, TextFeatures, TextSpec
from lavibridge.core.errors import ModelError
from lavibridge.core.placement import Placement
from lavibridge.core.quantization import quantize_linear_layers
from lavibridge.core.sources import RANDOM
from lavibridge.language.base import DEFAULT_TOKENS, LanguageModel
from lavibridge.language.parts import attention_backend
from lavibridge.language.parts.architecture import Architecture, configured_architecture
from lavibridge.language.parts.block_stack import record_layers, stack_blocks
from lavibridge.language.parts.byte_tokens import TOY_IDS, byte_tokenizer
from lavibridge.language.parts.loading import (
    build_on_meta,
    check_quantization,
    class_name,
    load_language_config,
    load_model,
    stated_limit,
)
from lavibridge.language.parts.tokens import PLACE, PromptTokens, TokenBatch
from lavibridge.language.parts.vocabulary import check_vocabulary_frame, vocabulary_pad_id

DECODER_TOKENS = 256
"""Default limit of decoder-only models, which have far more positions than a prompt has tokens."""
ENCODER_TOKENS = 512
"""Largest default limit of encoders, which T5 and BERT were trained with."""


class TransformersModel(LanguageModel):
    """The code that all families share; a family sets the class attributes."""

    models: ClassVar[Mapping[str, str]]
    """Value of `model_type` in config.json -> class in Transformers; `source: random` takes the first."""
    load_options: ClassVar[Mapping[str, Any]] = {}
    """Arguments that the model is always built with."""
    call_options: Mapping[str, Any] = {}
    """Arguments that the model is always called with."""
    read: ClassVar[str] = "last"
    """The default read-out over layers."""
    is_decoder: ClassVar[bool] = False
    """Whether the model is decoder-only, which decides its default limit."""
    learned_positions: bool = False
    """Whether positions are learned vectors, so that a token's context-free features depend on its place."""
    first_position: int = 0
    """The position of a prompt's first token."""
    takes_queries: bool = True
    """Whether the model accepts vectors in place of tokens."""
    pads: ClassVar[tuple[str, ...]] = ("pad",)
    """Special tokens to pad with, by preference. Without `see_padding` no real token attends to padding, so
    the choice only matters to weights that were trained with visible padding."""
    is_framed: ClassVar[bool] = False
    """Whether all its training prompts began and ended as in `toy_template`."""
    toy: ClassVar[Mapping[str, Any]]
    """Configuration of `source: random`, except the token ids."""
    toy_template: ClassVar[str]
    """How the byte tokenizer frames a prompt, with $A for the prompt."""

    backbone: Any
    tokenizer: Any

    def __init__(self, config: LanguageModel.Config, device: torch.device | None = None) -> None:
        """Load the model; on the meta ``device``, build it from its config.json, with a byte tokenizer."""
        super().__init__()
        self.config = config
        check_quantization(config)
        self.placement = Placement.of(config, device)
        is_meta = self.placement.is_meta
        if config.source == RANDOM:
            self.backbone, self.tokenizer = self._build_toy(device)
        else:
            architecture = self._architecture(config.source, config.revision)
            if is_meta:
                self.backbone = build_on_meta(architecture, self.placement.dtype)
                self.tokenizer = byte_tokenizer(self.toy_template)
            else:
                self.backbone, self.tokenizer = load_model(config, architecture)
        self.backbone.requires_grad_(False).eval()
        self.recomputed: list[nn.Module] = []
        settings = self._sizes(self.backbone.config)
        self.max_tokens = self._limit(config, settings)
        self.config = config.model_copy(update={"max_tokens": self.max_tokens})
        self.blocks = attention_backend.transformer_blocks(self.backbone, settings.num_hidden_layers)
        self.is_stacked = stack_blocks(self.backbone, self.blocks)
        self.spec = TextSpec(
            width=settings.hidden_size,
            layers=settings.num_hidden_layers + 1,
            read=self.read,
            pooled=self._pooled_width(),
        )
        most = self._positions(settings)
        rows = sys.maxsize if is_meta else len(self.backbone.get_input_embeddings().weight)
        to_limit = bool(config.see_padding)
        pad = vocabulary_pad_id(self.tokenizer, self.pads, rows, to_limit, config.source)
        self.tokens = PromptTokens(self.tokenizer, pad, self.max_tokens, config.template, to_limit, rows)
        if not is_meta:
            self._check_tokens()
        if self.max_tokens + len(self.tokens.before) > most:
            beside = f" and {len(self.tokens.before)} of the template" if self.tokens.before else ""
            raise ModelError(
                f"max_tokens is {self.max_tokens}{beside}, but {config.source} has positions for "
                f"{most} tokens: lower max_tokens"
            )

    @classmethod
    def accepts(cls, source: str, revision: str | None = None) -> bool:
        """Whether config.json (or a pipeline's text_encoder/config.json) names one of the family's types."""
        return source != RANDOM and load_language_config(source, revision)[0].get("model_type") in cls.models

    @classmethod
    def default_max_tokens(cls, config: LanguageModel.Config) -> int:
        """Return the limit in force for ``config``, from the configurations of model and tokenizer."""
        return cls._limit(config, cls._sizes(cls._architecture(config.source, config.revision).settings))

    def encode(self, prompts: Sequence[str], reading: ReadingSpec = LAST_LAYER) -> TextFeatures:
        """Features of prompts; see `LanguageModel.encode`."""
        self.load()
        layers = self._numbered(reading.layers)
        tokens = self.tokens(prompts)
        if reading.queries is not None:
            return self._query_features(tokens, layers, reading.queries, reading.keeps_prompt)
        device = next(self.backbone.parameters()).device
        ids, mask, kept = tokens.ids.to(device), tokens.mask.to(device), tokens.kept.to(device)
        seen = None if self.config.see_padding is True else mask.long()
        is_pooled = self.spec.pooled is not None
        hidden, output = self._run(layers, is_whole=is_pooled, input_ids=ids, attention_mask=seen)
        real = mask[:, kept]
        return TextFeatures(
            hidden=hidden[:, :, kept],
            mask=torch.ones_like(real) if self.config.see_padding else real,
            pooled=self._pooled(output, ids),
            context_free=self._context_free(ids[:, kept], kept, layers) if reading.context_free else None,
        )

    def sequence_lengths(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of each prompt with its special ones, the template and the padding that the model sees."""
        return self.tokens.lengths(prompts)

    def enable_gradient_checkpointing(self) -> None:
        """Recompute the blocks in the backward pass."""
        self.recomputed = attention_backend.checkpoint_transformer_blocks(self.backbone, self.config.source)

    def unread(self, reading: ReadingSpec) -> list[nn.Module]:
        """The blocks above the highest layer that is read."""
        return self.blocks[max(self._numbered(reading.layers)) :]

    def compile_blocks(self, backend: str) -> None:
        """Compile the blocks, each when it is first called."""
        for block in attention_backend.require_transformer_blocks(self.backbone, self.config.source):
            block.compile(backend=backend)

    def set_attention_backend(self, kernel: str) -> None:
        """Choose the kernel of attention."""
        attention_backend.set_language_attention_backend(self.backbone, kernel, self.config.source)

    def count_tokens(self, prompts: Sequence[str]) -> tuple[list[int], list[int]]:
        """Tokens used and tokens cut off, for each prompt."""
        return self.tokens.count(prompts)

    def spans(self, prompt: str) -> list[tuple[int, int]]:
        """Characters of the prompt, by token."""
        return self.tokens.spans(prompt)

    def _check_tokens(self) -> None:
        """Raise ModelError if the tokenizer frames prompts differently from the model's training."""
        if self.is_framed:
            check_vocabulary_frame(self.tokens.begin, self.tokens.end, self.toy_template, self.config.source)

    def _pooled(self, output: Any, ids: Int[Tensor, "batch token"]) -> Float[Tensor, "batch width"] | None:
        """The pooled vector, in families that have one."""
        return None

    def _pooled_width(self) -> int | None:
        return None

    @classmethod
    def _architecture(cls, source: str, revision: str | None) -> Architecture:
        """Return the model's class and configuration. Raises ModelError for a model of another family."""
        description, _ = load_language_config(source, revision)
        model = cls._class(class_name(source, description, cls.models))
        return configured_architecture(model, description, cls.load_options)

    @classmethod
    def _sizes(cls, config: Any) -> Any:
        """The part of the configuration that states the sizes."""
        return config

    @classmethod
    def _positions(cls, settings: Any) -> int:
        """The number of tokens that the model has positions for; relative positions have no limit."""
        return int(getattr(settings, "max_position_embeddings", None) or sys.maxsize)

    @classmethod
    def _is_decoder(cls, settings: Any) -> bool:
        return cls.is_decoder

    @classmethod
    def _limit(cls, config: LanguageModel.Config, settings: Any) -> int:
        """The limit in force."""
        if isinstance(config.max_tokens, int):
            return config.max_tokens
        if config.max_tokens is None or config.see_padding:
            own = DEFAULT_TOKENS
        elif cls._is_decoder(settings):
            own = DECODER_TOKENS
        else:
            stated = None if config.source == RANDOM else stated_limit(config.source, config.revision)
            own = min(stated or ENCODER_TOKENS, ENCODER_TOKENS)
        before = (config.template or "").partition(PLACE)[0] if config.max_tokens == "auto" else ""
        # A template takes positions of its own, at most one for each byte.
        return max(2, min(own, cls._positions(settings) - len(before.encode())))

    def _query_features(
        self,
        tokens: TokenBatch,
        layers: list[int],
        queries: Float[Tensor, "query width"],
        keeps_prompt: bool,
    ) -> TextFeatures:
        """Features of vectors behind each prompt's real tokens, and of these tokens if they are kept."""
        if not self.takes_queries or self.config.see_padding:
            raise ModelError(
                f"the language model {self.config.source} takes tokens only, and the connector appends "
                "vectors: choose a decoder-only model, T5 or BERT, without see_padding"
            )
        table = self.backbone.get_input_embeddings()
        ids, mask = tokens.ids.to(table.weight.device), tokens.mask.to(table.weight.device)
        count = len(queries)
        words = table(ids)
        vectors = torch.cat([words, words.new_zeros(len(ids), count, words.shape[-1])], dim=1)
        rows = torch.arange(len(ids), device=ids.device)[:, None]
        places = mask.sum(1, keepdim=True) + torch.arange(count, device=ids.device)
        vectors = vectors.index_put((rows, places), queries.to(vectors))
        seen = torch.arange(vectors.shape[1], device=ids.device) < places[:, -1:] + 1
        read, _ = self._run(layers, inputs_embeds=vectors, attention_mask=seen.long())
        if keeps_prompt:
            behind = torch.arange(ids.shape[1], vectors.shape[1], device=ids.device)
            kept = torch.cat([tokens.kept.to(ids.device), behind])
            return TextFeatures(hidden=read[:, :, kept], mask=seen[:, kept])
        hidden = read.transpose(1, 2)[rows, places].transpose(1, 2)
        return TextFeatures(hidden=hidden, mask=torch.ones_like(places, dtype=torch.bool))

    def _context_free(
        self, ids: Tensor, kept: Tensor, layers: list[int]
    ) -> Float[Tensor, "batch layer token width"]:
        """Each token's features as a sequence of one token; equal tokens are computed once."""
        places = kept.expand_as(ids) if self.learned_positions else torch.zeros_like(ids)
        pairs, index = torch.stack([ids.flatten(), places.flatten()]).unique(dim=1, return_inverse=True)
        first = self.first_position
        positions = {"position_ids": pairs[1][:, None] + first} if self.learned_positions else {}
        hidden, _ = self._run(layers, input_ids=pairs[0][:, None], **positions)
        return hidden[:, :, 0][index].unflatten(0, ids.shape).transpose(1, 2)

    def _run(
        self, layers: list[int], is_whole: bool = False, **inputs: Any
    ) -> tuple[Float[Tensor, "batch layer token width"], Any]:
        """The layers of a batch, and the backbone's output, which is complete only with ``is_whole``.

        Raises ModelError if the backbone does not run its blocks in order.
        """
        for block in self.recomputed:
            block.training = torch.is_grad_enabled()  # otherwise the library stores activations
        last = self.spec.layers - 1
        inner = {layer for layer in layers if layer != last}
        with record_layers(inner, last if is_whole else max(layers)) as recorded:
            states = {"output_hidden_states": True} if inner and not self.is_stacked else {}
            output = self.backbone(**inputs, **states, **self.call_options)
        hidden = recorded if self.is_stacked else dict(enumerate(output.hidden_states or ()))
        if not inner <= hidden.keys():
            raise ModelError(
                f"the language model '{self.config.source}' does not run its blocks one after the other, so "
                "only its last layer can be read: choose connector.read=last"
            )
        hidden[last] = output.last_hidden_state  # the only layer that passes through the final norm
        return torch.stack([hidden[layer] for layer in layers], dim=1).float(), output

    def _numbered(self, layers: Sequence[int]) -> list[int]:
        last = self.spec.layers - 1
        wanted = [layer + self.spec.layers if layer < 0 else layer for layer in layers]
        if any(not 0 <= layer <= last for layer in wanted):
            raise ModelError(
                f"the connector reads layers {tuple(layers)}, but {self.config.source} has layers 0 to {last}"
            )
        return wanted

    def _build_toy(self, device: torch.device | None) -> tuple[Any, Any]:
        with torch.random.fork_rng(devices=[]), device or nullcontext():
            torch.manual_seed(0)
            backbone = self._fresh()
        backbone.to(self.placement.dtype)
        if self.config.quantize is not None and not self.placement.is_meta:
            quantize_linear_layers(backbone, self.config.quantize)
        return backbone, byte_tokenizer(self.toy_template)

    def _fresh(self) -> Any:
        """A toy of the first class with new weights."""
        model = self._class(next(iter(self.models.values())))
        return model(model.config_class(**self.toy, **TOY_IDS), **self.load_options)

    @classmethod
    def _class(cls, name: str) -> Any:
        """The model's class."""
        return getattr(transformers, name)
