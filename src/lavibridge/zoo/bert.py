"""`mini-bert`: a bidirectional encoder that fills masked words of the world's text (arXiv 1810.04805).

    a small [MASK] circle   ->   red

The class is Transformers' `BertForMaskedLM`. Training selects 40 % of the tokens, more than the published 15
%, because each row then has more to learn from (Wettig et al. 2023, arXiv 2202.08005). Of the selected
tokens, 80 % become `[MASK]`, 10 % another token and 10 % stay, as published; there is no next-sentence task
(Liu et al. 2019, arXiv 1907.11692).
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM

from lavibridge.world.documents import write_document
from lavibridge.world.words import SYNONYMS
from lavibridge.zoo.pretraining import Pretraining
from lavibridge.zoo.tokenizers import BERT_LENGTH, wordpiece_tokenizer

_MASKED, _MASKED_IN_SCORES = 0.4, 0.15
_HELD_OUT = 400
_IGNORED = -100


class BertPretraining(Pretraining):
    """Masked-language modelling, one document per row."""

    name = "mini-bert"
    steps = 4000
    batch = 48
    lr = 1.5e-3

    def __init__(self, documents: int = 60_000) -> None:
        self.tokenizer = wordpiece_tokenizer()
        torch.manual_seed(self.seed)
        config = BertConfig(
            vocab_size=len(self.tokenizer),
            hidden_size=160,
            intermediate_size=640,
            num_hidden_layers=5,
            num_attention_heads=5,
            max_position_embeddings=BERT_LENGTH,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        self.network = BertForMaskedLM(config)
        self.networks = nn.ModuleDict({"bert": self.network})
        self.rows = self._rows([write_document(self.seed, index) for index in range(documents)])
        self.held_out = self._rows([write_document(0, index, split="test") for index in range(_HELD_OUT)])

    def _rows(self, documents: list[str]) -> list[Tensor]:
        found = self.tokenizer(documents, truncation=True)["input_ids"]
        return [torch.tensor(row) for row in found]

    def loss(self, step: int) -> Tensor:
        """Return the cross-entropy of the masked tokens."""
        chosen = torch.randint(len(self.rows), (self.batch,)).tolist()
        return self._loss([self.rows[index] for index in chosen], _MASKED)

    def _loss(self, rows: list[Tensor], masked: float) -> Tensor:
        pad = self.tokenizer.pad_token_id
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
        special = torch.isin(ids, torch.tensor(self.tokenizer.all_special_ids))
        selected = (torch.rand(ids.shape) < masked) & ~special
        fate = torch.rand(ids.shape)
        inputs = torch.where(selected & (fate < 0.8), self.tokenizer.mask_token_id, ids)
        inputs = torch.where(selected & (fate >= 0.9), torch.randint_like(ids, len(self.tokenizer)), inputs)
        labels = torch.where(selected, ids, _IGNORED)
        found: Tensor = self.network(input_ids=inputs, attention_mask=(ids != pad).long(), labels=labels).loss
        return found

    def scores(self) -> dict[str, float]:
        """Return the held-out perplexity (masked as published), and the fraction of synonyms filled in
        correctly."""
        torch.manual_seed(0)
        parts = [self.held_out[start : start + 50] for start in range(0, _HELD_OUT, 50)]
        losses = torch.stack([self._loss(part, _MASKED_IN_SCORES) for part in parts])
        return {"perplexity": float(losses.mean().exp()), "synonyms": self._synonyms_known()}

    def _synonyms_known(self) -> float:
        """Return the fraction of `X means [MASK] .` filled in correctly, over every synonym of the world."""
        known = []
        for word, others in SYNONYMS.items():
            expected = self.tokenizer(word, add_special_tokens=False)["input_ids"][0]
            for other in others:
                ids = self.tokenizer(f"{other} means [MASK] .", return_tensors="pt")["input_ids"]
                place = int((ids[0] == self.tokenizer.mask_token_id).nonzero())
                known.append(int(self.network(input_ids=ids).logits[0, place].argmax()) == expected)
        return sum(known) / len(known)

    def export(self, folder: Path) -> None:
        """Write a `BertForMaskedLM` folder with its tokenizer."""
        self.network.half().save_pretrained(folder)
        self.network.float()
        self.tokenizer.save_pretrained(folder)
