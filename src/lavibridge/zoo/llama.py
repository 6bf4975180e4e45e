"""`mini-llama`: a causal language model trained on the world's text alone, without pictures.

The class is Transformers' `LlamaForCausalLM`; documents are packed end to end into rows of `_LENGTH` tokens.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from lavibridge.world.documents import write_document
from lavibridge.world.words import SYNONYMS
from lavibridge.zoo.pretraining import Pretraining
from lavibridge.zoo.tokenizers import byte_level_tokenizer

_LENGTH = 128
_HELD_OUT = 400


class LlamaPretraining(Pretraining):
    """Next-token prediction."""

    name = "mini-llama"
    steps = 2500
    batch = 16
    lr = 2e-3

    def __init__(self, documents: int = 60_000) -> None:
        self.tokenizer = byte_level_tokenizer()
        torch.manual_seed(self.seed)
        config = LlamaConfig(
            vocab_size=len(self.tokenizer),
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=6,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=256,
            bos_token_id=self.tokenizer.bos_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
            tie_word_embeddings=True,
        )
        self.network = LlamaForCausalLM(config)
        self.networks = nn.ModuleDict({"llama": self.network})
        self.rows = self._pack([write_document(self.seed, index) for index in range(documents)])
        self.held_out = self._pack([write_document(0, index, split="test") for index in range(_HELD_OUT)])

    def _pack(self, documents: list[str]) -> Tensor:
        """Pack documents, each with an end token, into rows of `_LENGTH`."""
        end = self.tokenizer.eos_token_id
        ids = [token for row in self.tokenizer(documents)["input_ids"] for token in (*row, end)]
        return torch.tensor(ids[: len(ids) // _LENGTH * _LENGTH]).view(-1, _LENGTH)

    def loss(self, step: int) -> Tensor:
        """Return the cross-entropy of the next token."""
        rows = self.rows[torch.randint(len(self.rows), (self.batch,))]
        return self.network(input_ids=rows, labels=rows, use_cache=False).loss

    def scores(self) -> dict[str, float]:
        """Return the held-out perplexity, and the fraction of synonyms completed correctly."""
        losses = [self.network(input_ids=x, labels=x, use_cache=False).loss for x in self.held_out.split(16)]
        return {"perplexity": float(torch.stack(losses).mean().exp()), "synonyms": self._synonyms_known()}

    def _synonyms_known(self) -> float:
        """Return the fraction of `X means ...` continued correctly, over every synonym of the world."""
        known = []
        for word, others in SYNONYMS.items():
            for other in others:
                start = self.tokenizer(f"{other} means", return_tensors="pt")["input_ids"]
                expected = self.tokenizer(word, add_special_tokens=False)["input_ids"][0]
                known.append(int(self.network(input_ids=start).logits[0, -1].argmax()) == expected)
        return sum(known) / len(known)

    def export(self, folder: Path) -> None:
        """Write a `LlamaForCausalLM` folder with its tokenizer."""
        self.network.half().save_pretrained(folder)
        self.network.float()
        self.tokenizer.save_pretrained(folder)
