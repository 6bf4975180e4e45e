"""Writes text of the world for language models: captions in every wording, and knowledge that no caption
carries.

    caption      a small crimson disc to the left of a box .
    paraphrase   a red circle above a star . in other words , a star beneath a scarlet disc .
    definition   crimson is another word for red .
    question     question : what color is a jade hoop ? answer : green .
    inversion    if a dot is left of a box , then the box is right of the dot .

Synonyms, definitions and inverted phrasings occur here and in no image caption, so that only the language
model's knowledge can carry them into pictures. Withheld pairs of colour and shape do not occur at all.
"""

from dataclasses import replace
from zlib import crc32

import numpy as np

from lavibridge.world.caption_templates import (
    WordChoice,
    caption_noun_phrase,
    fill_mixed_templates,
    pick_synonym,
    write_caption,
    write_unseen_caption,
)
from lavibridge.world.captions import TRAINING_MIX, sample_spec
from lavibridge.world.rng import rng_pick, rng_pick_weighted
from lavibridge.world.scene import COLORS, DIRECTIONS, SHAPES
from lavibridge.world.words import NUMBER_SYNONYMS, NUMBERS, SYNONYMS

DOCUMENT_KINDS: dict[str, float] = {
    "caption": 0.15,
    "mixed": 0.2,
    "paraphrase": 0.35,
    "definition": 0.08,
    "question": 0.18,
    "inversion": 0.04,
}
_INVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
_PARAPHRASE_LINKS = ("in other words ,", "that is ,", "or put differently ,", "which means")


def write_document(seed: int, index: int, split: str = "train") -> str:
    """Return the short text that (seed, index, split) identifies: always the same one."""
    rng = np.random.default_rng([crc32(f"text/{split}".encode()), seed, index])
    kind = rng_pick_weighted(rng, DOCUMENT_KINDS)
    makers = {
        "definition": _definition,
        "question": _question,
        "inversion": _inversion,
        "paraphrase": _paraphrase,
    }
    if kind in makers:
        return makers[kind](rng)
    category = rng_pick_weighted(rng, TRAINING_MIX)
    spec = sample_spec(rng, category)
    return write_caption(rng, spec, category) if kind == "caption" else f"{fill_mixed_templates(rng, spec)} ."


def _definition(rng: np.random.Generator) -> str:
    word = rng_pick(rng, tuple(SYNONYMS))
    other = pick_synonym(rng, word)
    if word in COLORS:
        forms = (
            "{other} is a kind of {word} .",
            "a {other} thing is {word} .",
            "the color {other} is {word} .",
        )
    elif word in SHAPES:
        forms = (
            "a {other} is a {word} .",
            "{other} means {word} .",
            "every {other} has the shape of a {word} .",
        )
    else:
        forms = ("{other} means {word} .", "a {other} thing is {word} .", "{other} is the same as {word} .")
    if rng.random() < 0.1:
        number = int(rng.choice(list(NUMBERS)))
        other, word = NUMBER_SYNONYMS[number][rng.integers(2)], NUMBERS[number]
        forms = ("{other} means {word} .", "{other} things are {word} things .", "{other} is {word} .")
    return forms[rng.integers(len(forms))].format(word=word, other=other)


def _question(rng: np.random.Generator) -> str:
    """Ask for one attribute of a thing described in any words; the answer is the plain word."""
    group = replace(sample_spec(rng, "one").groups[0], place=None)
    phrase = caption_noun_phrase(rng, group, _any_word(rng))
    absent = rng_pick(rng, [shape for shape in SHAPES if shape != group.shape])
    questions = {
        "what color is {x} ?": group.color,
        "what shape is {x} ?": group.shape,
        "what texture is on {x} ?": group.texture,
        "how large is {x} ?": group.size,
        f"is there a {absent} in a picture of only {{x}} ?": "no",
    }
    asked = rng_pick(rng, [question for question, answer in questions.items() if answer is not None])
    return f"question : {asked.format(x=phrase)} answer : {questions[asked]} ."


def _inversion(rng: np.random.Generator) -> str:
    a, b = (pick_synonym(rng, str(shape)) for shape in rng.choice(SHAPES, size=2, replace=False))
    name = rng_pick(rng, DIRECTIONS)
    return f"if a {a} is {name} a {b} , then the {b} is {_INVERSE[name]} the {a} ."


def _paraphrase(rng: np.random.Generator) -> str:
    """State the same spec twice, in plain words and in synonyms, in either order."""
    category = rng_pick(rng, ["one", "one", "two", "color", "spatial", "non-spatial", "counting"])
    spec = sample_spec(rng, category)
    captions = [write_caption(rng, spec, category), write_unseen_caption(rng, spec)]
    if rng.random() < 0.5:
        captions.reverse()
    return f"{captions[0]} . {_PARAPHRASE_LINKS[rng.integers(len(_PARAPHRASE_LINKS))]} {captions[1]} ."


def _any_word(rng: np.random.Generator) -> WordChoice:
    return lambda word: pick_synonym(rng, word) if rng.random() < 0.5 else word
