"""Trains the tokenizers of the miniature language models on the world's own text."""

import json
import math
from collections import Counter
from collections.abc import Iterator

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertTokenizer, CLIPTokenizer, PreTrainedTokenizerFast, T5Tokenizer

from lavibridge.world.captions import CATEGORIES, evaluation_prompts
from lavibridge.world.documents import write_document

DOCUMENTS = 8_000
CLIP_LENGTH = 64
"""Positions of the miniature CLIP; the longest caption of the world needs 52."""
BERT_LENGTH = 128


def _corpus() -> Iterator[str]:
    """Yield text that contains every word of the world many times."""
    yield from (write_document(0, index) for index in range(DOCUMENTS))
    for category in CATEGORIES:
        yield from (pair.caption for pair in evaluation_prompts(category, 100, seed=1))


def byte_level_tokenizer(size: int = 1024) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE like Llama 3's, with begin, end and padding tokens; every text begins with
    `<s>`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=True),
    ])  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<pad>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        _corpus(), trainers.BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=alphabet)
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side="right",
        model_max_length=256,
    )


def clip_tokenizer(size: int = 1024) -> CLIPTokenizer:
    """Train a BPE with CLIP's own pre-tokenisation and word endings."""
    blank = CLIPTokenizer()
    inner = blank.backend_tokenizer
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = inner.normalizer, inner.pre_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    vocab, merges = _parts(tokenizer)
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=CLIP_LENGTH)


def unigram_tokenizer(size: int = 900) -> T5Tokenizer:
    """Train a unigram model like T5's: `</s>` ends a text, 100 sentinels stand for spans.

    Its pieces come from a BPE, weighted by frequency: the unigram trainer of `tokenizers` prefers pieces
    shared by *different* words, and so splits the common words of so small a vocabulary.
    """
    special = ["<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = T5Tokenizer().backend_tokenizer.pre_tokenizer
    letters = [chr(code) for code in range(33, 127)]
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=letters)
    tokenizer.train_from_iterator(_corpus(), trainer)
    counts = Counter(piece for text in _corpus() for piece in tokenizer.encode(text).tokens)
    by_id = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)
    pieces = [(piece, math.log((counts[piece] + 0.1) / counts.total())) for piece in by_id[len(special) :]]
    sentinels = [(f"<extra_id_{index}>", 0.0) for index in reversed(range(100))]
    vocab_scores = [*((token, 0.0) for token in special), *pieces, *sentinels]
    return T5Tokenizer(vocab=vocab_scores, model_max_length=256, padding_side="right")


def wordpiece_tokenizer(size: int = 1000) -> BertTokenizer:
    """Train a WordPiece with BERT's own normalisation and special tokens."""
    blank = BertTokenizer().backend_tokenizer
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = blank.normalizer, blank.pre_tokenizer
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(code) for code in range(33, 127)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=letters, continuing_subword_prefix="##"
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return BertTokenizer(vocab=tokenizer.get_vocab(), model_max_length=BERT_LENGTH)


def _parts(tokenizer: Tokenizer) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Return vocabulary and merges of a trained BPE, with the letters that never ended a word added."""
    model = json.loads(tokenizer.to_str())["model"]
    vocab: dict[str, int] = model["vocab"]
    for letter in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocab.setdefault(letter + "</w>", len(vocab))
    return vocab, [tuple(merge) for merge in model["merges"]]
