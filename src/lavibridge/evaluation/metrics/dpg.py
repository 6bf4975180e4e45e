"""DPG-Bench: the share of questions about a long prompt that a model that sees answers with yes.

    picture   mean over its questions, each 0 where one that it hangs on is answered no (benchmarks/dsg.py)
    total     mean over pictures; published as a percentage
    category  entity, attribute, relation, global, other: the share of questions answered yes, as asked

The published judge, mPLUG-large, is not in transformers; any image-text model takes its place, and scores of
different judges do not compare. `paper_compat` is ELLA's script to the letter, with what is wrong in it: the
first line of the file is not read (pictures whose other questions hang on it are lost), a question before its
parent is not taken back, and categories are read from the last picture of each prompt alone.

Hu et al. 2024, ELLA, arXiv 2403.05135.
"""

from collections.abc import Mapping, Sequence

from PIL import Image

from lavibridge.evaluation.base import Score, ScoredTask, Task, unscored
from lavibridge.evaluation.benchmarks.dsg import Question, QuestionGraph, cascade, cascade_as_published
from lavibridge.evaluation.benchmarks.model_metrics import VisualQuestionMetric
from lavibridge.evaluation.benchmarks.prompt_metadata import metadata_of
from lavibridge.evaluation.benchmarks.totals import means_by_part
from lavibridge.evaluation.stats import Estimate


class Dpg(VisualQuestionMetric):
    """Judges what a long prompt says, question by question."""

    class Config(VisualQuestionMetric.Config):
        """The options of DPG-Bench."""

        paper_compat: bool = False
        """Do as ELLA's script does, mistakes and all, to compare with numbers made by it."""

    config: "Dpg.Config"

    def check(self, tasks: Sequence[Task]) -> None:
        """Every prompt must have questions."""
        for task in tasks:
            metadata_of(task, QuestionGraph, "dpg")

    def score(self, pictures: Sequence[Image.Image], tasks: Sequence[Task]) -> list[Score]:
        """The share for each picture; `detail` has the answers by category."""
        return [
            self._score(picture, metadata_of(task, QuestionGraph, "dpg"))
            for picture, task in zip(pictures, tasks, strict=True)
        ]

    def totals(self, scored: Sequence[ScoredTask]) -> Mapping[str, Estimate]:
        """The share of yes by category of question."""
        if self.config.paper_compat:
            scored = list({(each.category, each.prompt): each for each in scored}.values())
        return means_by_part([(each, each.score.detail.get("yes", {})) for each in scored])

    def _score(self, picture: Image.Image, asked: QuestionGraph) -> Score:
        left_out = 1 if self.config.paper_compat and asked.opens_file else 0
        questions = asked.questions[left_out:]
        if not questions:
            return unscored("the published script reads no question of this prompt")
        problem = asked.problem()
        if problem and not self.config.paper_compat:
            return unscored(problem)
        probabilities = self.image_text_model.yes_probabilities(
            picture, [f"{question.text} Answer yes or no." for question in questions]
        )
        yes = {
            question.number: chance >= 0.5 for question, chance in zip(questions, probabilities, strict=True)
        }
        values = cascade_as_published(questions, yes) if self.config.paper_compat else cascade(questions, yes)
        if values is None:
            return unscored(
                "the published script breaks off: a question hangs on the line that it does not read"
            )
        return Score(value=sum(values.values()) / len(values), detail={"yes": _by_category(questions, yes)})


def _by_category(questions: Sequence[Question], yes: Mapping[int, bool]) -> dict[str, list[float]]:
    """The answers, before any is taken back, by what they are about."""
    found: dict[str, list[float]] = {}
    for question in questions:
        found.setdefault(question.category, []).append(float(yes[question.number]))
    return found
