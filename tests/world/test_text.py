"""The text of the world: it teaches every synonym and gives no withheld pair away."""

from functools import cache

from lavibridge.world.documents import DOCUMENT_KINDS, write_document
from lavibridge.world.scene import COLORS, SHAPES, WITHHELD
from lavibridge.world.words import SYNONYMS


@cache
def documents() -> tuple[str, ...]:
    return tuple(write_document(0, index) for index in range(1500))


def test_a_document_is_named_by_seed_and_index() -> None:
    assert write_document(1, 2) == write_document(1, 2)
    assert write_document(1, 2) != write_document(1, 2, split="test")


def test_every_word_and_synonym_occurs() -> None:
    text = " ".join(documents())
    for word, others in SYNONYMS.items():
        assert all(f"{other}" in text for other in (word, *others)), word


def test_every_kind_of_text_occurs() -> None:
    marks = {"question": "answer :", "inversion": "if a", "paraphrase": (" . "), "definition": "kind of"}
    assert set(marks) < set(DOCUMENT_KINDS)
    for kind, mark in marks.items():
        assert any(mark in each for each in documents()[:400]), kind


def test_withheld_pairs_do_not_stand_together() -> None:
    names = {word: (word, *SYNONYMS[word]) for word in (*COLORS, *SHAPES)}
    forbidden = [f"{a} {b}" for color, shape in WITHHELD for a in names[color] for b in names[shape]]
    for text in documents():
        assert not any(phrase in text for phrase in forbidden), text
