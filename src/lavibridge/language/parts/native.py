"""The text side of a published pipeline: all of its text encoders, read as the pipeline reads them.

    prompt --tokenizer--> ids --encoder--> hidden states --\
    prompt --tokenizer--> ids --encoder--> hidden states ---[side by side, one behind the other]--> tokens
                               \\--> pooled --[side by side]--> pooled vector

The vision family says which encoders, layers and lengths those are (`core/text_encoders.py`). Tokens and
pooled vectors equal those of Diffusers' `encode_prompt`, so a denoiser draws what its own pipeline draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lavibridge.core.contracts import LAST_LAYER, ReadingSpec, TextFeatures, TextSpec
from lavibridge.core.errors import ModelError
from lavibridge.core.placement import Placement
from lavibridge.core.safetensors_file import read_safetensors_header
from lavibridge.core.sources import SAFETENSORS, find_model_file, find_single_file, read_model_json
from lavibridge.core.text_encoders import PipelineTextEncoders, TextEncoder
from lavibridge.language.base import DEFAULT_TOKENS, LanguageModel
from lavibridge.language.ldm_bert import ldm_bert
from lavibridge.language.parts import attention_backend
from lavibridge.language.parts.architecture import configured_architecture
from lavibridge.language.parts.byte_tokens import byte_tokenizer
from lavibridge.language.parts.loading import build_on_meta, load_tokenizer, load_weights
from lavibridge.language.parts.native_prompts import PromptTokenizer, TokenizedPrompts
from lavibridge.language.parts.single_file import encoder_prefix, load_encoder_from_file
from lavibridge.language.parts.vocabulary import check_vocabulary

META_TEMPLATE = "<s> $A </s>"
"""How the byte tokenizer of an encoder on the meta device frames a prompt."""
_WITH_HEAD = ("ForCausalLM", "ForConditionalGeneration")
"""Ends of the names of classes that also predict tokens or read images; only their text decoder is kept."""


@dataclass(frozen=True, kw_only=True)
class NativeOutput:
    """One encoder's output for a batch of prompts."""

    tokens: Float[Tensor, "batch token width"]
    mask: Bool[Tensor, "batch token"]
    pooled: Float[Tensor, "batch _"] | None


class NativeText(LanguageModel):
    """Frozen text encoders of a pipeline's folder; takes no LoRA, and no connector but `identity`."""

    class Config(LanguageModel.Config):
        """The pipeline, how it reads prompts, and how wide the denoiser's tokens are."""

        side: PipelineTextEncoders
        """How the pipeline reads prompts."""
        width: int
        """Width of the tokens that the denoiser takes."""
        config: str | None = None
        """Where the configurations and tokenizers of a single file are; None for a folder."""
        variant: str | None = None
        """Number format in the names of the weights' files, such as fp16."""
        unload: bool = False
        """Load each encoder when prompts are read and let it go before the next, to save memory."""

    config: Config
    backbone: nn.ModuleDict
    place: Tensor
    """Marks the device of the encoders, also while none is loaded."""
    lora_targets = ()
    reads_negative_prompts_differently = True

    def __init__(self, config: Config, device: torch.device | None = None) -> None:
        """Load the encoders; on the meta ``device``, build them from their config.json files, with byte
        tokenizers. Raises ModelError if the folder lacks one or they do not fit together."""
        super().__init__()
        self.config = config
        self.placement = Placement.of(config, device)
        self.side = config.side
        file = find_single_file(config.source, config.revision)
        has_encoders = file is not None and file.suffix.lower() == SAFETENSORS  # GGUF has a denoiser alone
        self.header = read_safetensors_header(file) if file is not None and has_encoders else None
        self.root = config.source if config.config is None else config.config
        self.revision = config.revision if file is None else None
        description = self._read_json("model_index.json")
        if description is None:
            raise ModelError(f"'{self.root}' has no model_index.json, which lists its text encoders")
        self.description = description
        self.present = [each for each in self.side.encoders if self._is_present(each)]
        settings = {each: self._settings(each) for each in self.present}
        tokenizers = {each.tokenizer: self._load_tokenizer(each) for each in self.present}
        self.prompts = {
            each: PromptTokenizer(each, self.side, tokenizers[each.tokenizer], self.placement.is_meta)
            for each in self.present
        }
        loaded = {} if config.unload else {each.folder: self._load(each) for each in self.present}
        self.backbone = nn.ModuleDict(loaded)
        self.register_buffer("place", torch.zeros((), device=device), persistent=False)
        widths = [
            sum(_width(settings[each]) * len(each.layers) for each in group if each in settings)
            for group in self.side.sequence
        ]
        if max(widths) > config.width:
            raise ModelError(
                f"the text encoders of '{config.source}' make tokens {max(widths)} wide, and its denoiser "
                f"takes {config.width}: the folder's parts do not belong together"
            )
        pooled = [_pooled_width(settings[each], self._class_name(each)) for each in self.side.pooled]
        self.spec = TextSpec(width=config.width, layers=1, pooled=sum(pooled) if pooled else None)
        self.max_tokens = max(self._limit(each) for group in self.side.sequence for each in group)
        self.config = config.model_copy(update={"max_tokens": self.max_tokens})

    @property
    def tokens_per_prompt(self) -> int | None:
        """Number of tokens that every prompt has, padding included; None if the padding is masked."""
        first = [group[0] for group in self.side.sequence]
        return None if any(each.padding == "masked" for each in first) else sum(map(self._limit, first))

    @classmethod
    def accepts(cls, source: str, revision: str | None = None) -> bool:
        """Never: only the vision model of the same folder knows how its pipeline reads prompts."""
        return False

    def encode(self, prompts: Sequence[str], reading: ReadingSpec = LAST_LAYER) -> TextFeatures:
        """Tokens and pooled vectors of prompts; ModelError for layers, queries or context-free features."""
        return self._read(prompts, reading, self.side.instruction)

    def encode_negative(self, prompts: Sequence[str], reading: ReadingSpec = LAST_LAYER) -> TextFeatures:
        """Negative prompts have no instruction, and for some pipelines the empty one is all zeros."""
        made = self._read(prompts, reading, "")
        if not self.description.get("force_zeros_for_empty_prompt", False):
            return made
        full = torch.tensor([bool(prompt) for prompt in prompts], device=made.hidden.device)
        return TextFeatures(
            hidden=made.hidden * full[:, None, None, None],
            mask=made.mask,
            pooled=None if made.pooled is None else made.pooled * full[:, None],
        )

    def sequence_lengths(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of each prompt in the encoder that computes most of them."""
        padded = max((self._limit(each) for each in self.present if each.padding != "masked"), default=0)
        removed = max(each.removed(self.side.instruction) for each in self.prompts.values())
        return [max(used, padded) + removed for used in self.count_tokens(prompts)[0]]

    def unread(self, reading: ReadingSpec) -> list[nn.Module]:
        """None: nothing here is trained."""
        return []

    def enable_gradient_checkpointing(self) -> None:
        """Does nothing: no gradient passes through the encoders."""

    def compile_blocks(self, backend: str) -> None:
        """Compile the repeated blocks of every encoder, each when it is first called."""
        for folder, encoder in self.backbone.items():
            for block in attention_backend.require_transformer_blocks(
                encoder, f"{self.config.source}/{folder}"
            ):
                block.compile(backend=backend)

    def set_attention_backend(self, kernel: str) -> None:
        """Choose the kernel of attention in every encoder."""
        for folder, encoder in self.backbone.items():
            attention_backend.set_language_attention_backend(
                encoder, kernel, f"{self.config.source}/{folder}"
            )

    def spans(self, prompt: str) -> list[tuple[int, int]]:
        """Characters of the prompt, by token; a group's are those of its first encoder."""
        found: list[tuple[int, int]] = []
        for group in self.side.sequence:
            if group[0] in self.prompts:
                found += self.prompts[group[0]].spans(prompt, self.side.instruction)
            else:
                found += [(0, 0)] * self._limit(group[0])
        return found

    def count_tokens(self, prompts: Sequence[str]) -> tuple[list[int], list[int]]:
        """Tokens used and cut off by the encoder that reads most of a prompt."""
        readers = [each for group in self.side.sequence for each in group if each in self.present]
        encoder = max(readers, key=self._limit)
        limit = self._limit(encoder)
        lengths = self.prompts[encoder].count(prompts)
        return [min(length, limit) for length in lengths], [max(0, length - limit) for length in lengths]

    def _read(self, prompts: Sequence[str], reading: ReadingSpec, instruction: str) -> TextFeatures:
        if reading.layers != LAST_LAYER.layers or reading.context_free or reading.queries is not None:
            raise ModelError(
                f"the text side of '{self.config.source}' returns its pipeline's tokens and nothing else: "
                "connect it with the connector 'identity', or choose a language model"
            )
        self.load()
        outputs: dict[TextEncoder, NativeOutput] = {}
        for encoder in self.present:
            outputs[encoder] = self._run(encoder, self.prompts[encoder].tokenize(prompts, instruction))
        groups = [self._group(group, outputs, len(prompts)) for group in self.side.sequence]
        vectors = [outputs[each].pooled for each in self.side.pooled]
        pooled = [vector for vector in vectors if vector is not None]
        return TextFeatures(
            hidden=torch.cat([hidden for hidden, _ in groups], dim=1)[:, None],
            mask=torch.cat([mask for _, mask in groups], dim=1),
            pooled=torch.cat(pooled, dim=1) if pooled else None,
        )

    def _group(
        self,
        group: Sequence[TextEncoder],
        outputs: Mapping[TextEncoder, NativeOutput],
        count: int,
    ) -> tuple[Float[Tensor, "batch token width"], Bool[Tensor, "batch token"]]:
        """A group's encoders side by side, as wide as the denoiser's tokens, and the mask of real tokens."""
        if not set(group) & outputs.keys():
            zeros = self.place.new_zeros(count, self._limit(group[0]), self.config.width)
            return zeros, torch.ones_like(zeros[..., 0], dtype=torch.bool)
        together = torch.cat([outputs[each].tokens for each in group], dim=2)
        wide = nn.functional.pad(together, (0, self.config.width - together.shape[2]))
        return wide, outputs[group[0]].mask

    def _run(self, encoder: TextEncoder, prompts: TokenizedPrompts) -> NativeOutput:
        """The encoder's output. With `unload` the model is local here, so that it is gone before the next."""
        unload = self.config.unload
        model = self._load(encoder).to(self.place.device) if unload else self.backbone[encoder.folder]
        device = next(model.parameters()).device
        ids, attended, kept = (each.to(device) for each in (prompts.ids, prompts.attended, prompts.kept))
        is_masked = encoder.padding != "seen" or getattr(model.config, "use_attention_mask", False)
        with torch.no_grad():
            output = model(
                input_ids=ids,
                attention_mask=attended.long() if is_masked else None,
                output_hidden_states=encoder.layers != (-1,),
            )
        states = [
            output.last_hidden_state if layer == -1 else output.hidden_states[layer]
            for layer in encoder.layers
        ]
        hidden = torch.cat(states, dim=-1).float()
        return NativeOutput(
            tokens=(hidden * attended[..., None] if encoder.padding == "zeros" else hidden)[:, kept],
            mask=prompts.read.to(device)[:, kept],
            pooled=_pooled(output).float() if encoder in self.side.pooled else None,
        )

    def _limit(self, encoder: TextEncoder) -> int:
        known = self.prompts.get(encoder)
        return (encoder.max_tokens or DEFAULT_TOKENS) if known is None else known.limit

    def _read_json(self, name: str) -> dict[str, Any] | None:
        return read_model_json(self.root, name, self.revision)

    def _load_tokenizer(self, encoder: TextEncoder) -> Any:
        name = encoder.tokenizer
        settings = self._read_json(f"{name}/tokenizer_config.json")
        if self.placement.is_meta:
            tokenizer = byte_tokenizer(META_TEMPLATE)
            tokenizer.model_max_length = int((settings or {}).get("model_max_length") or DEFAULT_TOKENS)
            return tokenizer
        if self.header is not None and settings is None:
            names = ", ".join(f"{each.tokenizer}/" for each in self.present)
            raise ModelError(
                f"'{self.config.source}' has no tokenizers, as no single file has, and its configuration "
                f"'{self.root}' has no {name}/: set vision.config to a folder or hub id with {names}"
            )
        return load_tokenizer(self.root, name, self.revision)

    def _load(self, encoder: TextEncoder) -> Any:
        settings = self._settings(encoder)
        model = self._class(encoder)
        if self.placement.is_meta:
            made = build_on_meta(configured_architecture(model, settings, {}), self.placement.dtype)
            return self._reader(encoder, made).requires_grad_(False).eval()
        prefix = self._prefix(encoder)
        if self.header is not None and prefix is not None:
            made = load_encoder_from_file(model, settings, self.header, prefix, self.placement)
        else:
            options = {} if self.config.variant is None else {"variant": self.config.variant}
            made = load_weights(model, self.root, encoder.folder, self.revision, self.placement, **options)
        rows = len(made.get_input_embeddings().weight)
        tokenizer = self.prompts[encoder].tokenizer
        check_vocabulary(tokenizer, rows, f"{self.config.source}/{encoder.folder}")
        return self._reader(encoder, made).requires_grad_(False).eval()

    def _reader(self, encoder: TextEncoder, model: Any) -> Any:
        """Return the part of a model that reads text, without a head and without eyes."""
        return model.get_decoder() if self._class_name(encoder).endswith(_WITH_HEAD) else model

    def _prefix(self, encoder: TextEncoder) -> str | None:
        """Return how the names of the encoder's tensors begin in a single file; None if it is not in one."""
        name = self._class_name(encoder)
        return None if self.header is None else encoder_prefix(self.header, encoder.folder, name)

    def _is_present(self, encoder: TextEncoder) -> bool:
        """Whether the folder has the encoder; a pipeline lists one that it lacks as [null, null].

        A single file may lack one that its configuration lists.
        """
        entry = self.description.get(encoder.folder) or [None]
        if encoder.folder not in self.side.optional:
            return True
        if entry[0] is None or self.header is None or self._prefix(encoder) is not None:
            return entry[0] is not None
        weights = (f"{encoder.folder}/model.safetensors{end}" for end in ("", ".index.json"))
        return any(find_model_file(self.root, each, self.revision) for each in weights)

    def _class_name(self, encoder: TextEncoder) -> str:
        entry = self.description.get(encoder.folder)
        library, name = entry if isinstance(entry, list) and len(entry) == 2 else (None, None)
        if not isinstance(name, str) or library is None:
            raise ModelError(
                f"'{self.config.source}' has no {encoder.folder} (model_index.json), and its pipeline reads "
                "prompts with it: take the complete folder"
            )
        return name

    def _class(self, encoder: TextEncoder) -> Any:
        name = self._class_name(encoder)
        made = ldm_bert() if name == "LDMBertModel" else getattr(transformers, name, None)
        if made is None:
            raise ModelError(
                f"the {encoder.folder} of '{self.config.source}' is a {name}, which this version of "
                "transformers does not have: update transformers"
            )
        return made

    def _settings(self, encoder: TextEncoder) -> Mapping[str, Any]:
        found = self._read_json(f"{encoder.folder}/config.json")
        if found is None:
            raise ModelError(
                f"'{self.config.source}' has no {encoder.folder}/config.json: take the complete folder"
            )
        return found


def _pooled(output: Any) -> Float[Tensor, "batch width"]:
    """The projected vector of an encoder with a projection, else the one that it pools."""
    found = getattr(output, "text_embeds", None)
    return output.pooler_output if found is None else found


def _width(settings: Mapping[str, Any]) -> int:
    """Width of hidden states; a model of several parts states that of the part that reads text."""
    text = next((settings[part] for part in ("text_config", "encoder") if part in settings), settings)
    return int(text.get("hidden_size") or text["d_model"])


def _pooled_width(settings: Mapping[str, Any], name: str) -> int:
    return int(settings["projection_dim"]) if name.endswith("WithProjection") else _width(settings)
