"""`mini-t5-small`, `-base`, `-large`: encoder-decoders that fill gaps in the world's text (1910.10683).

    a <X> circle above a <Y> .   ->   <X> small red <Y> star <Z>
    crimson means <X>            ->   <X> red . <Y>

The class is Transformers' `T5ForConditionalGeneration` in the gated form of T5 1.1; the three models differ
only in size. Raffel et al. 2020.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import T5Config, T5ForConditionalGeneration

from lavibridge.world.documents import write_document
from lavibridge.world.words import SYNONYMS
from lavibridge.zoo.pretraining import Pretraining
from lavibridge.zoo.tokenizers import unigram_tokenizer

_NOISE = 0.15
_SPAN = 3.0
"""NOISE is the fraction of removed tokens and SPAN the mean length of a span, as published."""
_PREFIX_SHARE = 0.5
"""Fraction of documents whose whole rest is removed (S-denoising of Tay et al. 2022, 2205.05131)."""
_HELD_OUT = 400
_IGNORED = -100


class T5Pretraining(Pretraining):
    """Span corruption, one document per row; the subclasses set the sizes.

    T5 does not scale its attention, so a learning rate that suits a narrow model makes the attention scores
    of a wide one diverge: at 2e-3 and still at 1e-3, `large` was worse than `base` after 3,000 steps.
    """

    steps = 4000
    batch = 48
    shape: dict[str, int]

    def __init__(self, documents: int = 60_000) -> None:
        self.tokenizer = unigram_tokenizer()
        torch.manual_seed(self.seed)
        config = T5Config(
            vocab_size=len(self.tokenizer),
            num_decoder_layers=self.shape["num_layers"],
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            decoder_start_token_id=self.tokenizer.pad_token_id,
            tie_word_embeddings=True,
            **self.shape,
        )
        self.network = T5ForConditionalGeneration(config)
        self.networks = nn.ModuleDict({"t5": self.network})
        self.sentinels: list[int] = self.tokenizer.convert_tokens_to_ids(
            [f"<extra_id_{i}>" for i in range(20)]
        )
        self.rows = self._rows([write_document(self.seed, index) for index in range(documents)])
        self.held_out = self._rows([write_document(0, index, split="test") for index in range(_HELD_OUT)])

    def _rows(self, documents: list[str]) -> list[list[int]]:
        rows: list[list[int]] = self.tokenizer(documents, add_special_tokens=False)["input_ids"]
        return rows

    def loss(self, step: int) -> Tensor:
        """Return the cross-entropy of the removed tokens."""
        chosen = torch.randint(len(self.rows), (self.batch,)).tolist()
        rng = np.random.default_rng([self.seed, step])
        return self._loss(rng, [self.rows[index] for index in chosen], _PREFIX_SHARE)

    def _loss(self, rng: np.random.Generator, rows: list[list[int]], share: float) -> Tensor:
        end = [self.tokenizer.eos_token_id]
        pairs = [
            _split_prefix(rng, row, self.sentinels)
            if rng.random() < share
            else corrupt_spans(rng, row, self.sentinels)
            for row in rows
        ]
        inputs = _padded([left + end for left, _ in pairs], self.tokenizer.pad_token_id)
        labels = _padded([right + end for _, right in pairs], _IGNORED)
        mask = (inputs != self.tokenizer.pad_token_id).long()
        loss: Tensor = self.network(input_ids=inputs, attention_mask=mask, labels=labels).loss
        return loss

    def scores(self) -> dict[str, float]:
        """Return the held-out perplexities of spans and continuations, and the fraction of known synonyms."""
        parts = [self.held_out[start : start + 50] for start in range(0, _HELD_OUT, 50)]

        def perplexity(share: float) -> float:
            rng = np.random.default_rng(0)
            return float(torch.stack([self._loss(rng, part, share) for part in parts]).mean().exp())

        return {
            "spans": perplexity(0.0),
            "continued": perplexity(1.0),
            "synonyms": self._synonyms_known(),
        }

    def _synonyms_known(self) -> float:
        """Return the fraction of `X means <blank> .` filled in correctly, over all synonyms."""
        start = torch.tensor([[self.tokenizer.pad_token_id, self.sentinels[0]]])
        known = []
        for word, others in SYNONYMS.items():
            expected = self.tokenizer(word, add_special_tokens=False)["input_ids"][0]
            for other in others:
                ids = self.tokenizer(f"{other} means <extra_id_0> .", return_tensors="pt")["input_ids"]
                logits = self.network(input_ids=ids, decoder_input_ids=start).logits
                known.append(int(logits[0, -1].argmax()) == expected)
        return sum(known) / len(known)

    def export(self, folder: Path) -> None:
        """Write a `T5ForConditionalGeneration` folder with its tokenizer."""
        self.network.half().save_pretrained(folder)
        self.network.float()
        self.tokenizer.save_pretrained(folder)


class T5SmallPretraining(T5Pretraining):
    """0.1 M weights."""

    name = "mini-t5-small"
    lr = 2e-3
    shape = {"d_model": 40, "d_ff": 96, "d_kv": 20, "num_heads": 2, "num_layers": 2}  # noqa: RUF012 - a constant


class T5BasePretraining(T5Pretraining):
    """0.8 M weights."""

    name = "mini-t5-base"
    lr = 1e-3
    shape = {"d_model": 96, "d_ff": 256, "d_kv": 32, "num_heads": 3, "num_layers": 3}  # noqa: RUF012 - a constant


class T5LargePretraining(T5Pretraining):
    """2.8 M weights."""

    name = "mini-t5-large"
    steps = 5000
    lr = 7e-4
    shape = {"d_model": 160, "d_ff": 384, "d_kv": 32, "num_heads": 5, "num_layers": 4}  # noqa: RUF012 - a constant


def _split_prefix(
    rng: np.random.Generator, ids: list[int], sentinels: list[int]
) -> tuple[list[int], list[int]]:
    """Cut the ids at a random place; the target is the rest, as one span between sentinels."""
    cut = int(rng.integers(0, len(ids)))
    return [*ids[:cut], sentinels[0]], [sentinels[0], *ids[cut:], sentinels[1]]


def corrupt_spans(
    rng: np.random.Generator, ids: list[int], sentinels: list[int]
) -> tuple[list[int], list[int]]:
    """Replace spans by one sentinel each; the target is the spans after their sentinels, with a closing
    sentinel.

    Spans do not touch. A random partition of the removed tokens decides their lengths.
    """
    taken = min(max(1, round(_NOISE * len(ids))), len(ids) - 1) if len(ids) > 1 else len(ids)
    spans = min(max(1, round(taken / _SPAN)), len(sentinels) - 1, max(1, len(ids) - taken))
    lengths = _cut(rng, taken, spans)
    gaps = _cut(rng, len(ids) - taken + 1, spans + 1) if len(ids) > taken else [1] + [0] * spans
    gaps[0] -= 1  # the text may begin with a span
    left: list[int] = []
    right: list[int] = []
    position = 0
    for sentinel, gap, length in zip(sentinels, gaps, lengths, strict=False):
        left += [*ids[position : position + gap], sentinel]
        position += gap
        right += [sentinel, *ids[position : position + length]]
        position += length
    return left + ids[position:], [*right, sentinels[spans]]


def _cut(rng: np.random.Generator, total: int, parts: int) -> list[int]:
    """Partition `total` at random into `parts` numbers of at least 1 (the last may be 0 if there are too
    few)."""
    parts_possible = min(parts, total)
    cuts = np.sort(rng.choice(max(total - 1, 0), size=parts_possible - 1, replace=False)) + 1
    edges = [0, *cuts.tolist(), total]
    found = [after - before for before, after in pairwise(edges)]
    return found + [0] * (parts - len(found))


def _padded(rows: list[list[int]], value: int) -> Tensor:
    return nn.utils.rnn.pad_sequence(
        [torch.tensor(row) for row in rows], batch_first=True, padding_value=value
    )
