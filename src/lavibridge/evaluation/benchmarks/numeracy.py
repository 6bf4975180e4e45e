"""T2I-CompBench++'s rule for "three cats and a dog": each object appears, as often as the prompt says.

    score = mean over the objects of (1/2 found + 1/2 found exactly n times)

Duplicate boxes of an object count once (boxes.py). The benchmark's own file `new_objects.txt` lists the
countable objects with their plurals: "knife - knives".

Huang et al. 2025, T2I-CompBench++, arXiv 2307.06350v3.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lavibridge.evaluation.benchmarks.boxes import Box, without_duplicate_boxes

_NUMBERS = {
    "a": 1,
    "an": 1,
    "one": 1,
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
}


@dataclass(frozen=True, kw_only=True)
class ObjectCounts:
    """The required count of each object of a prompt, by its singular name."""

    things: Mapping[str, int]


def read_numeracy_objects(text: str) -> dict[str, str]:
    """Parse lines such as "knife - knives" into singular by plural and by singular.

    Raises ValueError, which names the line, if one is invalid.
    """
    things: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        singular, dash, plural = (part.strip().lower() for part in line.partition(" - "))
        if not dash or not singular or not plural:
            raise ValueError(f"line {number} should read 'knife - knives', found '{line}'")
        things.setdefault(plural, singular)
        things[singular] = singular
    return things


def read_numeracy_counts(prompt: str, things: Mapping[str, str]) -> ObjectCounts:
    """The objects that directly follow a number in a prompt; repeated objects add up."""
    counts: dict[str, int] = {}
    words = re.findall(r"[^\W\d_]+|\S", prompt.lower())
    for i, word in enumerate(words):
        if word not in _NUMBERS:
            continue
        for length in (2, 1):
            named = " ".join(words[i + 1 : i + 1 + length])
            if named in things:
                counts[things[named]] = counts.get(things[named], 0) + _NUMBERS[word]
                break
    return ObjectCounts(things=counts)


def numeracy_score(counts: ObjectCounts, boxes: Sequence[Box]) -> tuple[float, dict[str, int]]:
    """The score of a picture, 0 to 1, and the detected count of each object. `counts` must not be empty."""
    kept = without_duplicate_boxes(boxes)
    found = {name: sum(box.name == name for box in kept) for name in counts.things}
    parts = [(found[name] > 0) / 2 + (found[name] == n) / 2 for name, n in counts.things.items()]
    return sum(parts) / len(parts), found
