"""Noun phrases and bare prompts, as read from T2I-CompBench's own kinds of sentences."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lavibridge.evaluation.benchmarks.phrases import noun_phrases, phrase_head, phrases_without_adjectives

EXPECTED = {
    "a green bench and a blue bowl": ["a green bench", "a blue bowl"],
    "a red stop sign and a white line": ["a red stop sign", "a white line"],
    "an oval sink and a rectangular mirror.": ["an oval sink", "a rectangular mirror"],
    "rubber sole shoes and fluffy clouds": ["rubber sole shoes", "fluffy clouds"],
    "a black, gold and white vase": ["a black , gold and white vase"],
    "A bathroom with white tile and a beige toilet.": ["A bathroom", "white tile", "a beige toilet"],
    "The fluffy cat is on the left of the soft pillow.": ["The fluffy cat", "the soft pillow"],
    "The soft pillow was on top of the hard rocking chair.": ["The soft pillow", "the hard rocking chair"],
    "The wooden ladder and glass jar hold the metallic screws for the shelf on the fabric workbench.": [
        "The wooden ladder",
        "glass jar",
        "the metallic screws",
        "the shelf",
        "the fabric workbench",
    ],
    "The leather shoes and fluffy socks rest on the metallic rack by the glass door.": [
        "The leather shoes",
        "fluffy socks",
        "the metallic rack",
        "the glass door",
    ],
    "The rectangular mirror was hung above the beige couch.": ["The rectangular mirror", "the beige couch"],
    "The comfortable armchair embraced the tired body and the hard wooden floor.": [
        "The comfortable armchair",
        "the tired body",
        "the hard wooden floor",
    ],
    "The cylindrical tower and the spherical dome stood tall against the skyline.": [
        "The cylindrical tower",
        "the spherical dome",
        "the skyline",
    ],
    "The white and yellow clock with a red roof": ["The white and yellow clock", "a red roof"],
    "The shiny silver watch ticked on the rough wooden table.": [
        "The shiny silver watch",
        "the rough wooden table",
    ],
    "The soft pink rose petal fell onto the rough grey sidewalk.": [
        "The soft pink rose petal",
        "the rough grey sidewalk",
    ],
}


@pytest.mark.parametrize("prompt", EXPECTED)
def test_phrases(prompt):
    assert list(noun_phrases(prompt)) == EXPECTED[prompt]


@given(st.text(max_size=200))
def test_any_text_is_read(prompt):
    for phrase in noun_phrases(prompt):
        assert phrase.strip()
        assert all(part in prompt for part in phrase.split())
    assert len(phrases_without_adjectives(prompt).split()) <= len(prompt) + 1


def test_very_long_prompts_are_read():
    assert noun_phrases("a red cat, " * 1000) == ("a red cat",) * 1000


def test_heads():
    assert phrase_head("the brown coat rack") == "coat rack"
    assert phrase_head("The striped black and white cat") == "cat"
    assert phrase_head("an orange") == "orange"


def test_bare_prompts():
    bare = phrases_without_adjectives("The fluffy cat is on the left of the soft pillow.")
    assert bare == "The cat is on the left of the pillow ."
    assert phrases_without_adjectives("The striped black and white cat slept.") == "The cat slept ."
    assert phrases_without_adjectives("a brown orange and a glass") == "a orange and a glass"
