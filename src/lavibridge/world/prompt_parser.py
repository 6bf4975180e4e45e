"""Parses a prompt in the words of the world into a spec, so that the exact checker can check a picture.

    prompt = [opening] phrase [relation phrase] [and phrase ...] [and no ... ...]   -> Spec, or None
    phrase = a | an | number,  size,  texture,  colour,  shape,  [place]

The parser maps synonyms to their plain words. It rejects a prompt with any unknown word and never guesses.
"""

import re
from collections.abc import Iterator, Mapping

from PIL import Image

from lavibridge.world.checker import check_picture, resize_to_canvas
from lavibridge.world.scene import COLORS, SHAPES, SIZES, TEXTURES, SceneGroup, SceneRelation, SceneSpec
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

_ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "size": tuple(SIZES),
    "texture": TEXTURES,
    "color": tuple(COLORS),
    "shape": SHAPES,
}
_ATTRIBUTE_OF_WORD = {
    word: (name, value)
    for name, values in _ATTRIBUTES.items()
    for value in values
    for word in (value, *SYNONYMS.get(value, ()))
} | {plural: ("shape", shape) for shape, plural in PLURALS.items()}
_COUNT_OF_WORD = {NUMBERS[n]: n for n in NUMBERS} | {
    word: n for n, all_ in NUMBER_SYNONYMS.items() for word in all_
}


def check_prompt(prompt: str, picture: Image.Image) -> dict[str, dict[str, bool | str]] | None:
    """Check a picture against a prompt: whether each clause holds, and why. None for an unknown prompt."""
    spec = parse_prompt(prompt)
    if spec is None:
        return None
    result = check_picture(resize_to_canvas(picture), spec)
    return {name: {"holds": holds, "reason": result.reasons[name]} for name, holds in result.clauses.items()}


def parse_prompt(prompt: str) -> SceneSpec | None:
    """Return the spec of a prompt, or None if the prompt has a word that the parser does not know."""
    text = _one_sentence(" ".join(prompt.lower().replace(",", " ").split()))
    for opening in sorted({each for each in OPENINGS if each != "{x}"}, key=len):
        before, after = opening.split("{x}")
        if text.startswith(before) and text.endswith(after):
            text = text[len(before) : len(text) - len(after)]
    absent: list[SceneGroup] = []
    while found := _last_absence(text):
        text, group = found
        absent.insert(0, group)
    for first, relation, second in (*_related(text), (text, None, None)):
        groups = [_group(phrase) for phrase in _split(first)]
        others = [] if second is None else [_group(phrase) for phrase in _split(second)]
        known = [group for group in (*groups, *others) if group is not None]
        if len(known) != len(groups) + len(others) or not known:
            continue
        if relation is None:
            return SceneSpec(groups=tuple(known), absent=tuple(absent))
        if len(groups) == 1:
            return SceneSpec(
                groups=tuple(known),
                relation=SceneRelation(name=relation, subject=0, object=1),
                absent=tuple(absent),
            )
    return None


def _one_sentence(text: str) -> str:
    """Join several sentences into one: `{x} . {b} is below it .` becomes `{x} above {b}`."""
    for ending in LONG_ENDINGS:
        text = text.replace(f" {ending}", "")
    text = text.rstrip(" .")
    first, stop, second = text.partition(" . ")
    for opening in LONG_OPENINGS:
        first = first.removeprefix(opening.split("{x}")[0])
    if not stop:
        return first
    for name, form in LONG_SECONDS.items():
        end = form.replace("{b}", "").rstrip(" .")
        if second.endswith(end):
            return RELATION_TEMPLATES[name][0].format(a=first, b=second.removesuffix(end))
    return text


def _related(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield every way to find a relation in a text: (subject, relation, object with the rest)."""
    for wordings in (RELATION_TEMPLATES, UNSEEN_RELATION_TEMPLATES):
        for name, forms in wordings.items():
            for form in forms:
                pattern = re.escape(form).replace(r"\{a\}", "(?P<a>.+?)").replace(r"\{b\}", "(?P<b>.+?)")
                found = re.fullmatch(f"{pattern}(?P<rest>(?: and .+)?)", text)
                if found:
                    yield found["a"], name, found["b"] + found["rest"]


def _split(text: str) -> list[str]:
    return text.split(" and ")


def _last_absence(text: str) -> tuple[str, SceneGroup] | None:
    """Return the text before the last ``and no ...``, and the absent group."""
    for found in reversed(list(re.finditer(r" (?:(?:and|but) no|without an?) ", text))):
        group = _group(f"a {text[found.end() :]}")
        if group is not None and group.count == 1:
            return text[: found.start()], group
    return None


def _group(phrase: str) -> SceneGroup | None:
    """Parse a noun phrase into a group, or return None."""
    place = None
    for name, forms in PLACE_TEMPLATES.items():
        for form in forms:
            if phrase.endswith(f" {form}"):
                place, phrase = name, phrase.removesuffix(f" {form}")
    count, rest = _counted(phrase)
    attributes: dict[str, str] = {}
    while rest:
        word = next((word for word in _BY_LENGTH if rest == word or rest.startswith(f"{word} ")), None)
        if word is None:
            is_last = rest in ("thing", "things")
            return SceneGroup(**attributes, place=place, count=count) if is_last and attributes else None
        name, value = _ATTRIBUTE_OF_WORD[word]
        if name in attributes:
            return None
        attributes[name] = value
        rest = rest[len(word) :].lstrip()
    return SceneGroup(**attributes, place=place, count=count) if "shape" in attributes else None


def _counted(phrase: str) -> tuple[int, str]:
    """Return the count and the words after it."""
    for word, count in _COUNT_OF_WORD.items():
        if phrase.startswith(f"{word} "):
            return count, phrase.removeprefix(f"{word} ")
    return 1, re.sub(r"^(?:an?|the|one) ", "", phrase)


_BY_LENGTH = sorted(_ATTRIBUTE_OF_WORD, key=len, reverse=True)
