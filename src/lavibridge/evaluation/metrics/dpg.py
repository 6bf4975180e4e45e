"""DPG-Bench: the share of questions about a long prompt that an image-text model answers yes.

    picture   mean over its questions, each 0 if one that it depends on is answered no (benchmarks/dsg.py)
    total     mean over pictures; published as a percentage
    category  entity, attribute, relation, global, other: the share of questions answered yes

transformers lacks the published model, mPLUG-large. Any image-text model replaces it, but scores of different
models are not comparable. `paper_compat` reproduces ELLA's script with its errors: it skips the first line of
the file (and loses pictures with questions that depend on it), keeps a question that precedes its parent, and
reads categories from the last picture of each prompt only.

Hu et al. 2024, ELLA, arXiv 2403.05135.
"""

from collections.abc import Mapping, Sequence

from PIL import Image

from lavibridge.evaluation.base import Score, ScoredTask, Task, unscored_score
from lavibridge.evaluation.benchmarks.dsg import (
    DsgQuestion,
    DsgQuestionGraph,
    cascade_dsg,
    cascade_dsg_as_published,
)
from lavibridge.evaluation.benchmarks.model_metrics import VisualQuestionMetric
from lavibridge.evaluation.benchmarks.prompt_metadata import prompt_metadata
from lavibridge.evaluation.benchmarks.totals import totals_by_part
from lavibridge.evaluation.stats import Estimate


class Dpg(VisualQuestionMetric):
    """Scores a picture by the questions of its prompt."""

    class Config(VisualQuestionMetric.Config):
        """The options of DPG-Bench."""

        paper_compat: bool = False
        """Reproduce ELLA's script, including its errors, to compare with its numbers."""

    config: "Dpg.Config"

    def check(self, tasks: Sequence[Task]) -> None:
        """Check that every prompt has questions."""
        for task in tasks:
            prompt_metadata(task, DsgQuestionGraph, "dpg")

    def score(self, pictures: Sequence[Image.Image], tasks: Sequence[Task]) -> list[Score]:
        """The score of each picture; `detail` has the answers by category."""
        return [
            self._score(picture, prompt_metadata(task, DsgQuestionGraph, "dpg"))
            for picture, task in zip(pictures, tasks, strict=True)
        ]

    def totals(self, scored: Sequence[ScoredTask]) -> Mapping[str, Estimate]:
        """The share of yes by category of question."""
        if self.config.paper_compat:
            scored = list({(each.category, each.prompt): each for each in scored}.values())
        return totals_by_part([(each, each.score.detail.get("yes", {})) for each in scored])

    def _score(self, picture: Image.Image, graph: DsgQuestionGraph) -> Score:
        skipped = 1 if self.config.paper_compat and graph.opens_file else 0
        questions = graph.questions[skipped:]
        if not questions:
            return unscored_score("the published script reads no question of this prompt")
        problem = graph.problem()
        if problem and not self.config.paper_compat:
            return unscored_score(problem)
        probabilities = self.image_text_model.yes_probabilities(
            picture, [f"{question.text} Answer yes or no." for question in questions]
        )
        yes = {
            question.number: chance >= 0.5 for question, chance in zip(questions, probabilities, strict=True)
        }
        values = (
            cascade_dsg_as_published(questions, yes)
            if self.config.paper_compat
            else cascade_dsg(questions, yes)
        )
        if values is None:
            return unscored_score(
                "the published script stops: a question depends on the line that it does not read"
            )
        return Score(value=sum(values.values()) / len(values), detail={"yes": _by_category(questions, yes)})


def _by_category(questions: Sequence[DsgQuestion], yes: Mapping[int, bool]) -> dict[str, list[float]]:
    """The answers by category, before dependencies apply."""
    found: dict[str, list[float]] = {}
    for question in questions:
        found.setdefault(question.category, []).append(float(yes[question.number]))
    return found
