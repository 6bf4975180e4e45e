"""Soft-TIFA: an image-text model's probability of the correct answer to each question about a picture.

    score            the geometric mean over a prompt's questions: whether everything is correct
    arithmetic mean  the share of correct parts, also by skill: object, count, attribute, position, verb

GenEval 2's score; published as a percentage. Kamath et al. 2025, arXiv 2512.16853.
"""

from collections.abc import Mapping, Sequence

from PIL import Image

from lavibridge.evaluation.base import Score, ScoredTask, Task
from lavibridge.evaluation.benchmarks.model_metrics import VisualQuestionMetric
from lavibridge.evaluation.benchmarks.prompt_metadata import prompt_metadata
from lavibridge.evaluation.benchmarks.soft_tifa import (
    TifaAtoms,
    tifa_arithmetic_mean,
    tifa_geometric_mean,
    tifa_spellings,
)
from lavibridge.evaluation.benchmarks.totals import totals_by_part
from lavibridge.evaluation.stats import Estimate


class SoftTifa(VisualQuestionMetric):
    """Scores a picture by questions with known answers."""

    def check(self, tasks: Sequence[Task]) -> None:
        """Check that every prompt has questions with answers."""
        for task in tasks:
            prompt_metadata(task, TifaAtoms, "geneval2")

    def score(self, pictures: Sequence[Image.Image], tasks: Sequence[Task]) -> list[Score]:
        """The geometric mean for each picture; `detail` has the probabilities by skill."""
        return [
            self._score(picture, prompt_metadata(task, TifaAtoms, "geneval2"))
            for picture, task in zip(pictures, tasks, strict=True)
        ]

    def totals(self, scored: Sequence[ScoredTask]) -> Mapping[str, Estimate]:
        """The mean probability of the correct answer, by skill."""
        return totals_by_part([(each, each.score.detail.get("sure", {})) for each in scored])

    def _score(self, picture: Image.Image, metadata: TifaAtoms) -> Score:
        atoms = metadata.atoms
        sure = self.image_text_model.answer_probabilities(
            picture,
            [f"{atom.question} Answer in one word." for atom in atoms],
            [tifa_spellings(atom.answer) for atom in atoms],
        )
        by_skill: dict[str, list[float]] = {}
        for atom, value in zip(atoms, sure, strict=True):
            by_skill.setdefault(atom.skill, []).append(value)
        clauses = {"arithmetic mean": tifa_arithmetic_mean(sure)}
        return Score(value=tifa_geometric_mean(sure), clauses=clauses, detail={"sure": by_skill})
