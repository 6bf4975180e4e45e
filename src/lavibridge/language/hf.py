"""Language models of the transformers library; a family is a subclass that holds data only.

    prompts -> token ids (cut, padded on the right) -> backbone -> the kept layers, float32

Padding is made here, not by the tokenizer: its side differs between library versions, and with right padding
a causal model's real tokens never see it. Only safetensors are read, and no code from a folder is ever run.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import transformers
from jaxtyping import Bool, Float, Int
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor

from lavibridge.core.contracts import TextFeatures, TextSpec
from lavibridge.core.device import pick_dtype
from lavibridge.core.errors import ModelError
from lavibridge.core.files import resolve_source
from lavibridge.core.sources import RANDOM, read_model_json
from lavibridge.language.base import LanguageModel

BEGIN, END, PAD = "<s>", "</s>", "<pad>"
DEFAULT_TOKENS = 77
"""What the published U-Nets were trained with."""
TOY_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 258, "vocab_size": 259}
"""The byte tokenizer's special ids: the end has the highest, which is how old CLIP models find it."""


class TransformersModel(LanguageModel):
    """What all families share; the class attributes are what a family says of itself."""

    model_class: ClassVar[str]
    """Class in transformers."""
    model_types: ClassVar[tuple[str, ...]]
    """Values of `model_type` in config.json that it reads."""
    load_options: ClassVar[Mapping[str, Any]] = {}
    """Fixed arguments of building the model."""
    call_options: ClassVar[Mapping[str, Any]] = {}
    """Fixed arguments of calling it."""
    limits_positions: ClassVar[bool]
    """Whether a prompt longer than `max_position_embeddings` is impossible."""
    toy: ClassVar[Mapping[str, Any]]
    """Configuration of `source: random`, besides the token ids."""
    toy_template: ClassVar[str]
    """How the byte tokenizer frames a prompt, with $A for the prompt."""

    backbone: Any
    tokenizer: Any

    def __init__(self, config: LanguageModel.Config) -> None:
        super().__init__()
        self.config = config
        if config.source == RANDOM:
            self.backbone, self.tokenizer = self._build_toy()
        else:
            self.backbone, self.tokenizer = self._load()
        self.backbone.requires_grad_(False)
        self.backbone.eval()
        settings = self.backbone.config
        self.spec = TextSpec(width=settings.hidden_size, layers=settings.num_hidden_layers + 1)
        most = settings.max_position_embeddings if self.limits_positions else sys.maxsize
        self.max_tokens = config.max_tokens or min(DEFAULT_TOKENS, most)
        if self.max_tokens > most:
            raise ModelError(
                f"max_tokens is {self.max_tokens}, but {config.source} has positions for "
                f"{most} tokens: lower max_tokens"
            )
        choices = (self.tokenizer.pad_token_id, self.tokenizer.unk_token_id, self.tokenizer.eos_token_id, 0)
        self.pad_id = next(int(choice) for choice in choices if choice is not None)

    @classmethod
    def accepts(cls, source: str, revision: str | None = None) -> bool:
        """Whether config.json (or a pipeline's text_encoder/config.json) names one of the family's types."""
        return source != RANDOM and _describe(source, revision)[0].get("model_type") in cls.model_types

    def encode(self, prompts: Sequence[str], layers: Sequence[int] = (-1,)) -> TextFeatures:
        """Features of prompts; see the contract."""
        last = self.spec.layers - 1
        wanted = [layer + self.spec.layers if layer < 0 else layer for layer in layers]
        if any(not 0 <= layer <= last for layer in wanted):
            raise ModelError(
                f"layers {tuple(layers)} were asked for, but {self.config.source} has 0 to {last}"
            )
        ids, mask = self._tokens(prompts)
        output = self.backbone(
            input_ids=ids,
            attention_mask=None if self.config.see_padding else mask.long(),
            output_hidden_states=any(layer != last for layer in wanted),
            **self.call_options,
        )
        # In some families the list of hidden states ends before the final norm; last_hidden_state never does.
        kept = [output.last_hidden_state if one == last else output.hidden_states[one] for one in wanted]
        return TextFeatures(
            hidden=torch.stack(kept, dim=1).float(),
            mask=torch.ones_like(mask) if self.config.see_padding else mask,
            pooled=self._pooled(output),
        )

    def count_tokens(self, prompts: Sequence[str]) -> tuple[list[int], list[int]]:
        """Tokens used and tokens cut off, for each prompt."""
        lengths = [len(row) for row in self.tokenizer(list(prompts), verbose=False)["input_ids"]]
        used = [min(length, self.max_tokens) for length in lengths]
        return used, [length - kept for length, kept in zip(lengths, used, strict=True)]

    def _pooled(self, output: Any) -> Float[Tensor, "batch width"] | None:
        """The pooled vector, in families that have one."""
        return None

    def _tokens(
        self, prompts: Sequence[str]
    ) -> tuple[Int[Tensor, "batch token"], Bool[Tensor, "batch token"]]:
        """Ids and mask, padded on the right to the longest prompt (or to max_tokens with see_padding)."""
        cut = self.tokenizer(list(prompts), truncation=True, max_length=self.max_tokens)["input_ids"]
        # A tokenizer without special tokens makes nothing of the empty prompt: one pad then stands for it.
        rows = [row or [self.pad_id] for row in cut]
        width = self.max_tokens if self.config.see_padding else max(len(row) for row in rows)
        ids = torch.full((len(rows), width), self.pad_id)
        mask = torch.zeros(len(rows), width, dtype=torch.bool)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = True
        device = next(self.backbone.parameters()).device
        return ids.to(device), mask.to(device)

    def _build_toy(self) -> tuple[Any, Any]:
        model = getattr(transformers, self.model_class)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            backbone = model(model.config_class(**self.toy, **TOY_IDS), **self.load_options)
        return backbone.to(pick_dtype(self.config.dtype)), byte_tokenizer(self.toy_template)

    def _load(self) -> tuple[Any, Any]:
        source, revision = self.config.source, self.config.revision
        description, folder = _describe(source, revision)
        if description.get("model_type") not in self.model_types:
            raise ModelError(
                f"'{source}' holds a model of type '{description.get('model_type')}', this kind reads "
                f"{' or '.join(self.model_types)}: leave `kind` out, or choose the kind that fits"
            )
        root = resolve_source(source)
        _quieten()
        try:
            backbone, report = getattr(transformers, self.model_class).from_pretrained(
                root,
                subfolder=folder,
                revision=revision or "main",
                dtype=pick_dtype(self.config.dtype),
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                **self.load_options,
            )
            tokens = "tokenizer" if folder else ""
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                root, subfolder=tokens, revision=revision or "main", trust_remote_code=False
            )
        except (OSError, ValueError, ImportError) as error:
            raise ModelError(f"the language model '{source}' cannot be loaded: {error}") from error
        if report["missing_keys"]:
            missing = ", ".join(sorted(report["missing_keys"])[:3])
            raise ModelError(f"'{source}' lacks {len(report['missing_keys'])} weights, among them {missing}")
        return backbone, tokenizer


def _quieten() -> None:
    """Keep the library's loading report to itself (we check it), and its bar where nobody watches."""
    transformers.utils.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()


def _describe(source: str, revision: str | None) -> tuple[dict[str, Any], str]:
    """A model's config.json and the sub-folder it lies in (``text_encoder`` in a pipeline's folder)."""
    folder = "text_encoder" if read_model_json(source, "model_index.json", revision) is not None else ""
    description = read_model_json(source, str(Path(folder) / "config.json"), revision)
    if description is None:
        place = f" in {folder}/" if folder else ""
        raise ModelError(f"'{source}' has no config.json{place}: it is no model folder of transformers")
    return description, folder


def byte_tokenizer(template: str) -> Any:
    """A tokenizer of the 256 bytes: no files, any text; ``template`` frames it, as in ``<s> $A``."""
    tokens = [PAD, BEGIN, *sorted(pre_tokenizers.ByteLevel.alphabet()), END]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = [(token, vocabulary[token]) for token in (BEGIN, END)]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=BEGIN, eos_token=END
    )
