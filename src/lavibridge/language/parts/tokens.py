"""From prompts to padded token ids, the same for every tokenizer.

    begin | before | prompt ... | after | end | padding
    begin, end: the tokenizer's own special tokens       template: "before {prompt} after"

This module pads, always on the right, where a causal model's real tokens never see it; the side on which
tokenizers pad differs between library versions. Features of the template before the prompt are dropped, but
for the begin token, as in SANA (Xie et al. 2024, arXiv 2410.10629); those after it stay, since in a causal
model they have attended to the whole prompt.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lavibridge.core.errors import ModelError, RecipeError

PLACE = "{prompt}"


@dataclass(frozen=True, kw_only=True)
class TokenBatch:
    """A batch of prompts; ``kept`` are the columns whose features are returned."""

    ids: Int[Tensor, "batch token"]
    mask: Bool[Tensor, "batch token"]
    kept: Int[Tensor, " kept"]


class PromptTokens:
    """Turns prompts into ids with one tokenizer, template and limit."""

    def __init__(
        self,
        tokenizer: Any,
        pad_id: int,
        max_tokens: int,
        template: str | None,
        to_limit: bool,
        rows: int = sys.maxsize,
    ) -> None:
        """``rows`` is the size of the model's embedding table; tokens beyond it become plain text.

        Raises RecipeError for a template without ``{prompt}``, ModelError if no prompt fits beside it.
        """
        if template is not None and template.count(PLACE) != 1:
            raise RecipeError(
                f"language.template must hold {PLACE} once, where the prompt goes, found {template!r}"
            )
        self.tokenizer, self.pad_id = tokenizer, pad_id
        self.to_limit = to_limit
        self.rows = rows
        before, after = ("", "") if template is None else template.split(PLACE)
        self.before, self.after = (self._plain([text])[0] if text else [] for text in (before, after))
        frame = list(tokenizer("")["input_ids"])
        starts = {tokenizer.bos_token_id, tokenizer.cls_token_id}
        self.begin = frame[:1] if frame and frame[0] in starts else []
        self.end = frame[len(self.begin) :]
        self.max_tokens = max_tokens
        self.room = max_tokens - len(self.begin) - len(self.after) - len(self.end)
        if self.room < 1:
            raise ModelError(
                f"max_tokens is {max_tokens}, and special tokens with the template after the prompt take "
                f"{max_tokens - self.room} of them: raise max_tokens, or shorten the template"
            )

    def __call__(self, prompts: Sequence[str]) -> TokenBatch:
        """Ids and mask, padded to the longest prompt (or to the limit)."""
        rows = [
            [*self.begin, *self.before, *body[: self.room], *self.after, *self.end]
            # Without special tokens the empty prompt has no token: one pad stands for it.
            or [self.pad_id]
            for body in self._plain(prompts)
        ]
        cropped = len(self.before)
        width = self.max_tokens + cropped if self.to_limit else max(len(row) for row in rows)
        ids = torch.full((len(rows), width), self.pad_id)
        mask = torch.zeros(len(rows), width, dtype=torch.bool)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = True
        columns = torch.arange(width)
        begin = len(self.begin)
        return TokenBatch(ids=ids, mask=mask, kept=columns[(columns < begin) | (columns >= begin + cropped)])

    def spans(self, prompt: str) -> list[tuple[int, int]]:
        """Start and end characters of each kept token in the prompt; (0, 0) if it stands outside."""
        if not self.tokenizer.is_fast:
            raise ModelError(
                "weights such as (word:1.2) need the place of each token in the prompt, which this model's "
                "tokenizer does not provide: give it a tokenizer.json, or leave the weights out"
            )
        made = self._made(prompt, return_offsets_mapping=True)
        body = [tuple(place) for place in made["offset_mapping"]][: self.room]
        none = (0, 0)
        around = [none] * len(self.begin), [none] * (len(self.after) + len(self.end))
        found = [*around[0], *body, *around[1]] or [none]
        return found + [none] * (self.max_tokens - len(found) if self.to_limit else 0)

    def count(self, prompts: Sequence[str]) -> tuple[list[int], list[int]]:
        """Tokens used (special ones and the template after the prompt included) and cut off, by prompt."""
        lengths = [len(body) for body in self._plain(prompts)]
        own = self.max_tokens - self.room
        return (
            [min(length, self.room) + own for length in lengths],
            [max(0, length - self.room) for length in lengths],
        )

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        """Length of each prompt's row when it stands alone in a batch."""
        instruction = len(self.before)
        if self.to_limit:
            return [self.max_tokens + instruction] * len(prompts)
        return [max(1, used + instruction) for used in self.count(prompts)[0]]

    def _plain(self, texts: Sequence[str]) -> list[list[int]]:
        rows: list[list[int]] = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)[
            "input_ids"
        ]
        return [
            row if max(row, default=0) < self.rows else self._made(text)["input_ids"]
            for text, row in zip(texts, rows, strict=True)
        ]

    def _made(self, text: str, **options: bool) -> Any:
        """The tokenizer's output for a text; if a special token has no row, all are read as plain text."""
        made = self.tokenizer(text, add_special_tokens=False, verbose=False, **options)
        if max(made["input_ids"], default=0) < self.rows:
            return made
        return self.tokenizer(
            text, add_special_tokens=False, verbose=False, split_special_tokens=True, **options
        )
