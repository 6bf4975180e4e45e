"""A tokenizer of the 256 bytes for toys, which needs no files and tokenizes any text."""

from typing import Any

import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

BEGIN, END, PAD = "<s>", "</s>", "<pad>"
TOY_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 258, "vocab_size": 259}
"""Its special ids. The end token has the highest, since old CLIP models find it that way."""


def byte_tokens(template: str) -> Tokenizer:
    """Return the tokenizer; ``template`` frames each text, such as ``<s> $A``."""
    tokens = [PAD, BEGIN, *sorted(pre_tokenizers.ByteLevel.alphabet()), END]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = [(token, vocabulary[token]) for token in (BEGIN, END)]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    return tokenizer


def byte_tokenizer(template: str) -> Any:
    """A tokenizer of the 256 bytes, for any text; ``template`` frames each text, such as ``<s> $A``."""
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=byte_tokens(template), pad_token=PAD, bos_token=BEGIN, eos_token=END
    )
