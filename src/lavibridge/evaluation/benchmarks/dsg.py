"""Davidsonian scene graph: yes-or-no questions about a picture, some of which make sense only after others.

    question 1        Is there a car?              parent 0 (none)      yes  1
    question 2        Is the car blue?             parent 1             yes  1
    question 3        Is there a bicycle?          parent 0             no   0
    question 4        Is the bicycle by the car?   parents 1, 3         yes  0, for question 3 was answered no

    score = mean over the questions, each 0 where one that it hangs on is 0, and so on down

Cho et al. 2024, DSG, arXiv 2310.18235; DPG-Bench's questions and rule: Hu et al. 2024, ELLA, arXiv
2403.05135. `published` is ELLA's script to the letter: it goes through the questions once in the order of
the file, so that a question before its parent keeps its answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question about a picture."""

    number: int
    text: str
    category: str
    """What it asks about: entity, attribute, relation, global or other."""
    parents: tuple[int, ...] = ()
    """Numbers of the questions that must be answered yes for this one to count."""


@dataclass(frozen=True, kw_only=True)
class QuestionGraph:
    """The questions of a prompt, in the order of their file."""

    questions: tuple[Question, ...]
    opens_file: bool = False
    """Whether the first of them is the first line of the file, which the published script does not read."""

    def problem(self) -> str:
        """What is wrong with the numbers and parents, or nothing."""
        numbers = [question.number for question in self.questions]
        parents = {question.number: question.parents for question in self.questions}
        if len(set(numbers)) < len(numbers):
            return f"question numbers repeat: {numbers}"
        for number, above in parents.items():
            lost = [parent for parent in above if parent not in parents]
            if lost:
                return f"question {number} hangs on question {lost[0]}, which there is not"
        return "questions hang on each other in a ring" if _has_ring(parents) else ""


def cascade(questions: Sequence[Question], yes: Mapping[int, bool]) -> dict[int, float]:
    """1 for each question answered yes whose parents, and theirs in turn, are; else 0."""
    by_number = {question.number: question for question in questions}
    found: dict[int, float] = {}

    def value(number: int) -> float:
        if number not in found:
            holds = yes[number] and all(value(parent) for parent in by_number[number].parents)
            found[number] = float(holds)
        return found[number]

    return {question.number: value(question.number) for question in questions}


def cascade_as_published(questions: Sequence[Question], yes: Mapping[int, bool]) -> dict[int, float] | None:
    """The same as ELLA's script finds it; None where it breaks off, for a parent that it has not read."""
    found = {question.number: float(yes[question.number]) for question in questions}
    for question in questions:
        for parent in question.parents:
            if parent not in found:
                return None
            if found[parent] == 0:
                found[question.number] = 0.0
                break
    return found


def _has_ring(parents: Mapping[int, tuple[int, ...]]) -> bool:
    left = dict(parents)
    while left:
        free = [number for number, above in left.items() if not any(parent in left for parent in above)]
        if not free:
            return True
        for number in free:
            del left[number]
    return False
