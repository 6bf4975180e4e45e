"""Turns prompts into the token ids, masks and columns that one text encoder of a pipeline needs.

prompt -> instruction, template or chat message -> ids, padded
          attended    tokens that the encoder attends to
          read        tokens that the denoiser reads
          kept        columns that are left after an instruction or a template is removed
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lavibridge.core.errors import ModelError
from lavibridge.core.text_encoders import PROMPT, ChatTemplate, PipelineTextEncoders, TextEncoder
from lavibridge.language.base import DEFAULT_TOKENS
from lavibridge.language.parts.loading import LONGEST_LIMIT

BYTES_PER_TOKEN = 4
"""Of English text, by the tokenizers of large models."""


@dataclass(frozen=True, kw_only=True)
class TokenizedPrompts:
    """A batch of prompts for one encoder."""

    ids: Int[Tensor, "batch token"]
    attended: Bool[Tensor, "batch token"]
    """Tokens that the encoder attends to if it takes a mask."""
    read: Bool[Tensor, "batch token"]
    """Tokens that the denoiser reads."""
    kept: Int[Tensor, " kept"]
    """Columns that the denoiser gets."""


class PromptTokenizer:
    """Tokenizes prompts as a pipeline does for one of its encoders."""

    def __init__(
        self, encoder: TextEncoder, side: PipelineTextEncoders, tokenizer: Any, is_meta: bool = False
    ) -> None:
        """``is_meta`` means that ``tokenizer`` counts bytes and knows no chat template."""
        self.encoder, self.side, self.tokenizer, self.is_meta = encoder, side, tokenizer, is_meta

    @property
    def limit(self) -> int:
        """Length of the longest prompt, without what is removed from its start."""
        if self.encoder.max_tokens is not None:
            return self.encoder.max_tokens
        stated = int(self.tokenizer.model_max_length)
        return stated if stated < LONGEST_LIMIT else DEFAULT_TOKENS

    def tokenize(self, prompts: Sequence[str], instruction: str) -> TokenizedPrompts:
        """Return ids and masks of prompts after ``instruction``, which may be empty."""
        rows = self._encoded([self._text(prompt, instruction) for prompt in prompts], instruction)[
            "input_ids"
        ]
        attended, read = zip(*(self._lengths(len(row), instruction) for row in rows), strict=True)
        width = self._width(read, instruction)
        is_left = self.encoder.padding_side == "left"
        padding = [[self._pad_id(width - len(row))] * (width - len(row)) for row in rows]
        ids = [more + row if is_left else row + more for row, more in zip(rows, padding, strict=True)]
        places = torch.arange(width).flip(0) if is_left else torch.arange(width)
        return TokenizedPrompts(
            ids=torch.tensor(ids),
            attended=places < torch.tensor(attended)[:, None],
            read=places < torch.tensor(read)[:, None],
            kept=self._kept(width, instruction),
        )

    def spans(self, prompt: str, instruction: str) -> list[tuple[int, int]]:
        """Characters of the prompt behind each token that the denoiser gets; (0, 0) for other tokens."""
        text, own = self._text(prompt, instruction), self._own(prompt)
        start = text.rfind(own, 0, _shared(text, self._text("", instruction)) + len(own))
        found = self._encoded([text], instruction, return_offsets_mapping=True)["offset_mapping"][0]
        width = self._width([self._lengths(len(found), instruction)[1]], instruction)
        padding = [(0, 0)] * (width - len(found))
        places = [*padding, *found] if self.encoder.padding_side == "left" else [*found, *padding]
        kept = [places[column] for column in self._kept(width, instruction).tolist()]
        inside = [(max(0, a - start), min(b - start, len(own))) for a, b in kept]
        return [(a, b) if b > a else (0, 0) for a, b in inside]

    def count(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of each prompt, without what is removed and before anything is cut off."""
        texts = [self._text(prompt, "") for prompt in prompts]
        rows = self.tokenizer(texts, verbose=False, add_special_tokens=self._adds_special_tokens)["input_ids"]
        return [len(row) - self.encoder.removed_tokens for row in rows]

    def removed(self, instruction: str) -> int:
        """Number of tokens that the encoder computes and the denoiser does not get."""
        return self.encoder.removed_tokens + self._instruction_tokens(instruction)

    @property
    def _adds_special_tokens(self) -> bool:
        return self.encoder.chat is None or self.encoder.chat.add_special_tokens

    def _encoded(self, texts: list[str], instruction: str, **options: bool) -> Any:
        return self.tokenizer(
            texts,
            truncation=True,
            max_length=self._longest(instruction),
            add_special_tokens=self._adds_special_tokens,
            **options,
        )

    def _longest(self, instruction: str) -> int:
        kept = 0 if self.side.keeps_instruction else max(0, self._instruction_tokens(instruction) - 2)
        return self.limit + self.encoder.removed_tokens + kept

    def _lengths(self, length: int, instruction: str) -> tuple[int, int]:
        """Number of tokens that the encoder attends to and that the denoiser reads."""
        attended = -(-length // self.encoder.padding_multiple) * self.encoder.padding_multiple
        if self.encoder.padding != "masked":
            return attended, self._longest(instruction)
        return attended, max(attended, min(attended + self.encoder.read_padding, self._longest(instruction)))

    def _width(self, read: Sequence[int], instruction: str) -> int:
        """Padding that a mask hides reaches to the longest prompt only."""
        return max(read) if self.encoder.padding == "masked" else self._longest(instruction)

    def _kept(self, width: int, instruction: str) -> Int[Tensor, " kept"]:
        """All columns, but of a removed instruction only the first and last token."""
        columns = torch.arange(self.encoder.removed_tokens, width)
        cut = 0 if self.side.keeps_instruction else self._instruction_tokens(instruction)
        return columns if cut == 0 else torch.cat([columns[:1], columns[cut - 1 :]])

    def _instruction_tokens(self, instruction: str) -> int:
        if self.is_meta:
            return len(instruction) // BYTES_PER_TOKEN
        return len(self.tokenizer.encode(instruction)) if instruction else 0

    def _pad_id(self, needed: int) -> int:
        found = self.tokenizer.pad_token_id
        if found is None and needed:
            raise ModelError(
                f"the tokenizer in {self.encoder.tokenizer}/ has no padding token: name one in its "
                "tokenizer_config.json (pad_token)"
            )
        return int(found or 0)

    def _own(self, prompt: str) -> str:
        return prompt.lower().strip() if self.side.normalizes else prompt

    def _text(self, prompt: str, instruction: str) -> str:
        text = instruction + self._own(prompt)
        if self.encoder.chat is not None:
            text = self._message(text, self.encoder.chat)
        before, after = self.encoder.template.split(PROMPT)
        return self._literal(before) + text + self._literal(after)

    def _literal(self, text: str) -> str:
        """Text of a template; for a tokenizer that counts bytes, one byte for each of its tokens."""
        return text[: len(text) // BYTES_PER_TOKEN] if self.is_meta else text

    def _message(self, text: str, chat: ChatTemplate) -> str:
        """The chat message that says ``text``, in the words of the tokenizer's template."""
        if self.is_meta:
            return self._literal(chat.system or "") + text
        said = [("user", text)] if chat.system is None else [("system", chat.system), ("user", text)]
        messages = [
            {
                "role": role,
                "content": [{"type": "text", "text": content}] if chat.has_typed_content else content,
            }
            for role, content in said
        ]
        thinking = {} if chat.enable_thinking is None else {"enable_thinking": chat.enable_thinking}
        made: str = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=chat.add_generation_prompt, **thinking
        )
        return made


def _shared(one: str, other: str) -> int:
    """Number of characters that both texts begin with."""
    both = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(both) if a != b), min(len(one), len(other)))
