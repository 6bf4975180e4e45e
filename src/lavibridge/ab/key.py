"""The key of a study, which only its organiser has, and a vote, which tells nothing without the key.

ab.html       comparisons by meaningless names: a picture "first", a picture "second"
ab.key.json   which run drew which, and what the metrics of their evaluations said of them
votes.jsonl   {"study", "item", "question", "choice": "first" | "second" | "tie", "left": ..., "ms", ...}
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from lavibridge.core.config import Config, validate
from lavibridge.core.errors import RecipeError, RunError
from lavibridge.core.files import read_json

FORM = 1
"""The form of pages, keys and votes; raised when they change."""
QUESTIONS = {
    "follows": "Which picture follows the description better?",
    "looks": "Which picture looks better, whatever the description?",
}
VoteChoice = Literal["first", "second", "tie"]


class StudyRun(Config):
    """A run that takes part."""

    name: str
    """What tables call it."""
    folder: str
    """Where its evaluation lay when the study was built."""


class Item(Config):
    """One comparison."""

    item: str
    """Its name in the page."""
    category: str
    """The suite's category of the prompt."""
    prompt: str
    """The prompt that both pictures were drawn for."""
    seed: int
    """The noise that both began from."""
    first: int = Field(ge=0)
    """Place of the run that drew the page's first picture."""
    second: int = Field(ge=0)
    """Place of the run that drew the second."""
    repeat_of: str | None = None
    """The comparison that this one shows again, sides swapped."""
    scores: dict[str, tuple[float | None, float | None]] = Field(default_factory=dict)
    """By metric, what it says of the two pictures; null = not scored."""


class StudyKey(Config):
    """What un-blinds the votes of one study."""

    study: str
    """Names the study: a hash of all that its page shows."""
    form: int
    """The form of page, key and votes."""
    suite: str
    """The suite whose prompts are shown."""
    draw: int
    """The seed that prompts, pairs, sides and order were drawn with."""
    runs: tuple[StudyRun, ...] = Field(min_length=2)
    """Who takes part."""
    items: tuple[Item, ...] = Field(min_length=1)
    """The comparisons."""


class Vote(Config):
    """An answer to one question about one comparison."""

    study: str
    """The study that was voted in."""
    form: int
    """The form of the page."""
    rater: str = Field(min_length=1, max_length=100)
    """What the rater calls himself or herself; `metric:NAME` for a metric."""
    session: str = ""
    """Tells two people of one name apart: drawn when a rater begins."""
    item: str
    """The comparison."""
    question: str
    """Which question."""
    choice: VoteChoice
    """The picture that is better, or neither."""
    left: Literal["first", "second"] | None = None
    """The picture that stood on the left; null for a metric."""
    ms: int | None = Field(default=None, ge=0)
    """Milliseconds from the question to the answer; null for a metric."""
    at: str = ""
    """When, in ISO 8601."""
    metric: str | None = None
    """The metric that voted; null for a person."""


def read_key(path: Path) -> StudyKey:
    """The key of a study. RunError where the file is none."""
    found = read_json(path)
    if not isinstance(found, dict) or "study" not in found:
        raise RunError(f"{path} is no key of a study: name the .key.json that `lavi ab build` wrote")
    if found.get("form") != FORM:
        raise RunError(f"{path} has form {found.get('form')}, and this version of lavibridge reads {FORM}")
    try:
        key = validate(StudyKey, found, str(path))
    except RecipeError as error:
        raise RunError(str(error)) from None
    last, names = len(key.runs) - 1, {item.item for item in key.items}
    for item in key.items:
        if max(item.first, item.second) > last or item.repeat_of not in (None, *names):
            raise RunError(f"{path}: comparison '{item.item}' names a run or a comparison that is not there")
    return key
