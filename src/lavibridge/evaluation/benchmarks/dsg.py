"""Davidsonian scene graph: yes-or-no questions about a picture that may depend on each other.

    question 1        Is there a car?              parent 0 (none)      yes  1
    question 2        Is the car blue?             parent 1             yes  1
    question 3        Is there a bicycle?          parent 0             no   0
    question 4        Is the bicycle by the car?   parents 1, 3         yes  0, since question 3 is no

    score = mean over the questions, each 0 if one that it depends on is 0, recursively

Cho et al. 2024, DSG, arXiv 2310.18235; DPG-Bench's questions and rule: Hu et al. 2024, ELLA, arXiv
2403.05135. `cascade_dsg_as_published` reproduces ELLA's script, which visits the questions once in the order
of the file, so that a question before its parent keeps its answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DsgQuestion:
    """A question about a picture."""

    number: int
    text: str
    category: str
    """Entity, attribute, relation, global or other."""
    parents: tuple[int, ...] = ()
    """Numbers of the questions that must be yes for this one to count."""


@dataclass(frozen=True, kw_only=True)
class DsgQuestionGraph:
    """The questions of a prompt with their dependencies, in the order of their file."""

    questions: tuple[DsgQuestion, ...]
    opens_file: bool = False
    """Whether the first one is the first line of the file, which the published script skips."""

    def problem(self) -> str:
        """An error in the numbers or parents, or an empty string."""
        numbers = [question.number for question in self.questions]
        parents = {question.number: question.parents for question in self.questions}
        if len(set(numbers)) < len(numbers):
            return f"question numbers repeat: {numbers}"
        for number, above in parents.items():
            lost = [parent for parent in above if parent not in parents]
            if lost:
                return f"question {number} depends on question {lost[0]}, which does not exist"
        return "questions depend on each other in a cycle" if _has_cycle(parents) else ""


def cascade_dsg(questions: Sequence[DsgQuestion], yes: Mapping[int, bool]) -> dict[int, float]:
    """1 for each question that is yes along with all its ancestors, else 0."""
    by_number = {question.number: question for question in questions}
    found: dict[int, float] = {}

    def value(number: int) -> float:
        if number not in found:
            holds = yes[number] and all(value(parent) for parent in by_number[number].parents)
            found[number] = float(holds)
        return found[number]

    return {question.number: value(question.number) for question in questions}


def cascade_dsg_as_published(
    questions: Sequence[DsgQuestion], yes: Mapping[int, bool]
) -> dict[int, float] | None:
    """The same as in ELLA's script; None if the script fails on a parent that it has not read."""
    found = {question.number: float(yes[question.number]) for question in questions}
    for question in questions:
        for parent in question.parents:
            if parent not in found:
                return None
            if found[parent] == 0:
                found[question.number] = 0.0
                break
    return found


def _has_cycle(parents: Mapping[int, tuple[int, ...]]) -> bool:
    left = dict(parents)
    while left:
        free = [number for number, above in left.items() if not any(parent in left for parent in above)]
        if not free:
            return True
        for number in free:
            del left[number]
    return False
