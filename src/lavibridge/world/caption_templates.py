"""Writes captions of a spec: plain templates for image captions, and unseen templates for what captions never
say.

The spec alone decides what is true. Each spec has many captions.
"""

from collections.abc import Callable

import numpy as np

from lavibridge.world.rng import rng_pick
from lavibridge.world.scene import SceneGroup, SceneRelation, SceneSpec
from lavibridge.world.words import (
    LONG_ENDINGS,
    LONG_OPENINGS,
    LONG_SECONDS,
    NUMBER_SYNONYMS,
    NUMBERS,
    OPENINGS,
    PLACE_TEMPLATES,
    PLURALS,
    RELATION_TEMPLATES,
    SYNONYMS,
    UNSEEN_RELATION_TEMPLATES,
)

WordChoice = Callable[[str], str]
Templates = dict[str, tuple[str, ...]]


def write_caption(rng: np.random.Generator, spec: SceneSpec, category: str) -> str:
    """Write a caption of the spec in the style of its category."""
    if category == "unseen-words":
        return write_unseen_caption(rng, spec)
    if category == "long":
        return _write_long(rng, spec)
    return rng_pick(rng, OPENINGS).format(x=write_plain_caption(rng, spec))


def write_plain_caption(rng: np.random.Generator, spec: SceneSpec) -> str:
    """Write a caption of the spec in the plain words of image captions, without an opening."""
    return _write_content(rng, spec, _plain, RELATION_TEMPLATES)


def write_unseen_caption(rng: np.random.Generator, spec: SceneSpec) -> str:
    """Write a caption in words that no image caption uses: every attribute becomes a synonym."""
    return _write_content(rng, spec, lambda word: pick_synonym(rng, word), UNSEEN_RELATION_TEMPLATES)


def fill_mixed_templates(rng: np.random.Generator, spec: SceneSpec) -> str:
    """Write a caption that mixes plain words and synonyms, for the language models' own text."""

    def mixed(word: str) -> str:
        return pick_synonym(rng, word) if rng.random() < 0.5 else word

    wordings = RELATION_TEMPLATES if rng.random() < 0.5 else UNSEEN_RELATION_TEMPLATES
    return _write_content(rng, spec, mixed, wordings)


def pick_synonym(rng: np.random.Generator, word: str) -> str:
    """Pick one of the word's synonyms, or return the word if it has none."""
    return rng_pick(rng, SYNONYMS.get(word, (word,)))


def caption_noun_phrase(rng: np.random.Generator, group: SceneGroup, word: WordChoice) -> str:
    """Join article or number, size, texture, colour and shape: `a small striped red circle`, `three red
    circles`."""
    attributes = [word(value) for value in (group.size, group.texture, group.color) if value is not None]
    shape = group.shape or "thing"
    if group.count > 1:
        plain = word(shape) == shape
        number = NUMBERS[group.count] if plain else rng_pick(rng, NUMBER_SYNONYMS[group.count])
        return " ".join([number, *attributes, PLURALS[shape]])
    phrase = with_article(" ".join([*attributes, word(shape)]))
    return phrase if group.place is None else f"{phrase} {rng_pick(rng, PLACE_TEMPLATES[group.place])}"


def with_article(phrase: str) -> str:
    """Put `a` or `an` before the phrase."""
    vowel = phrase[0] in "aeiou" and not phrase.startswith("uni")
    return f"{'an' if vowel else 'a'} {phrase}"


def _join_relation(
    rng: np.random.Generator, a: str, b: str, relation: SceneRelation, wordings: Templates
) -> str:
    """Join two phrases with one of the relation's templates."""
    return rng_pick(rng, wordings[relation.name]).format(a=a, b=b)


def _write_content(rng: np.random.Generator, spec: SceneSpec, word: WordChoice, wordings: Templates) -> str:
    phrases = [caption_noun_phrase(rng, group, word) for group in spec.groups]
    if spec.relation is not None:
        phrases = [_join_relation(rng, phrases[0], phrases[1], spec.relation, wordings), *phrases[2:]]
    caption = " and ".join(phrases)
    for group in spec.absent:
        without = word(group.shape) if group.shape else f"{word(group.color or '')} thing"
        caption += rng_pick(
            rng, (f" and no {without}", f" but no {without}", f" without {with_article(without)}")
        )
    return caption


def _write_long(rng: np.random.Generator, spec: SceneSpec) -> str:
    """Write several sentences about a spec of two groups in a direction."""
    assert spec.relation is not None
    first, second = (caption_noun_phrase(rng, group, _plain) for group in spec.groups)
    sentences = [
        rng_pick(rng, LONG_OPENINGS).format(x=first),
        LONG_SECONDS[spec.relation.name].format(b=second),
        *rng.permutation(LONG_ENDINGS)[: rng.integers(1, 4)],
    ]
    return " ".join(sentences)


def _plain(word: str) -> str:
    return word
