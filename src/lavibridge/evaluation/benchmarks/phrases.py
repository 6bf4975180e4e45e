"""Extracts the noun phrases of a prompt with closed word lists: "a green bench and a bowl" -> "a green
bench", "a bowl".

A phrase runs from a determiner, or from the first word after a break, to the next break: a preposition, a
conjunction, a verb, a pronoun or a punctuation mark. This is exact for the templates of most T2I-CompBench
attribute prompts, and close to the published script (noun chunks of spaCy's `en_core_web_sm`) elsewhere. For
exact parity, prompts of kind `compbench` read such chunks from a file. Like the published script, this module
does not count "top", "the side", "the left" and "the right" as phrases.
"""

import re
from collections.abc import Iterator, Sequence

from lavibridge.evaluation.benchmarks.word_lists import (
    ADJECTIVES,
    AUXILIARIES,
    DETERMINERS,
    LINKS,
    NO_PARTICIPLES,
    PREPOSITIONS,
    PRONOUNS,
    VERBS,
    VERBS_AFTER_NOUNS,
)

_DROPPED = frozenset(("top", "the side", "the left", "the right"))
_BREAKS = PREPOSITIONS | LINKS | PRONOUNS | AUXILIARIES | VERBS
_WORD = re.compile(r"[^\W_]+(?:['’.:-][^\W_]+)*|[^\w\s]")


def noun_phrases(prompt: str) -> tuple[str, ...]:
    """The noun phrases of a prompt, in order and verbatim."""
    words = _WORD.findall(prompt)
    found = (" ".join(words[start:end]) for start, end in _spans([word.lower() for word in words]))
    return tuple(phrase for phrase in found if phrase.lower() not in _DROPPED)


def phrase_head(phrase: str) -> str:
    """The object that a phrase names: "the brown coat rack" -> "coat rack"."""
    words = phrase.lower().split()
    while len(words) > 1 and words[0] in DETERMINERS | ADJECTIVES | {"and", ","}:
        words = words[1:]
    return " ".join(words)


def phrases_without_adjectives(prompt: str) -> str:
    """The prompt without adjectives; keeps nouns of the same form."""
    words = _WORD.findall(prompt)
    lower = [word.lower() for word in words]
    dropped = [_is_adjective(lower, i) or _joins(lower, i) for i in range(len(words))]
    return " ".join(word for word, is_dropped in zip(words, dropped, strict=True) if not is_dropped)


def _spans(words: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield the start and end of each phrase."""
    start = 0
    for i in range(len(words) + 1):
        ends = i == len(words) or _breaks(words, start, i)
        if (ends or words[i] in DETERMINERS) and i > start:
            if _is_phrase(words[start:i]):
                yield start, i
            start = i
        if ends:
            start = i + 1


def _breaks(words: Sequence[str], start: int, i: int) -> bool:
    """Whether the word at `i` ends the phrase that began at `start`, and belongs to no phrase."""
    word = words[i]
    if _joins(words, i):
        return False
    if word in _BREAKS or not word[0].isalnum():
        return True
    if word.endswith("ly") and (i == start or _opens(words, i + 1)):
        return True
    is_participle = len(word) > 4 and word.endswith(("ed", "ing")) and word not in NO_PARTICIPLES
    has_noun = any(other not in DETERMINERS | ADJECTIVES for other in words[start:i])
    if is_participle:
        return (has_noun or i == start) and _opens(words, i + 1)
    return word in VERBS_AFTER_NOUNS and has_noun and _opens(words, i + 1)


def _joins(words: Sequence[str], i: int) -> bool:
    """Whether an "and" or a comma joins two adjectives of one phrase: "black and white cat"."""
    inside = 0 < i < len(words) - 2 and words[i] in ("and", ",")
    if not inside or words[i - 1] not in ADJECTIVES or words[i + 1] not in ADJECTIVES:
        return False
    return not _opens(words, i + 2) or _joins(words, i + 2)


def _opens(words: Sequence[str], i: int) -> bool:
    """Whether position `i` starts something new: the end, a break, a determiner, or an adverb."""
    if i >= len(words):
        return True
    word = words[i]
    return word in _BREAKS | DETERMINERS or not word[0].isalnum() or word.endswith("ly")


def _is_phrase(words: Sequence[str]) -> bool:
    """Whether the words name an object: "tall" does not, "the orange" may."""
    has_name = any(word not in DETERMINERS | ADJECTIVES for word in words)
    return has_name or (len(words) > 1 and words[0] in DETERMINERS and words[-1] in ADJECTIVES)


def _is_adjective(words: Sequence[str], i: int) -> bool:
    """Whether the word at `i` is a listed adjective followed by another word of its phrase."""
    if words[i] not in ADJECTIVES or i + 1 >= len(words):
        return False
    return _joins(words, i + 1) or not _opens(words, i + 1)
