"""The key of a blind study, which only its organiser has, and the votes, which reveal nothing without it.

ab.html       comparisons under random names, each with a "first" and a "second" picture
ab.key.json   which run drew each picture, and its metric scores
votes.jsonl   {"study", "item", "question", "choice": "first" | "second" | "tie", "left": ..., "ms", ...}
"""

from pathlib import Path

from pydantic import Field

from lavibridge.core.config import Config, validate_config
from lavibridge.core.errors import RecipeError, RunError
from lavibridge.core.files import read_json

KEY_FORMAT = 1
"""The format of pages, keys and votes; increases when they change."""
QUESTIONS = {
    "follows": "Which picture follows the description better?",
    "looks": "Which picture looks better, regardless of the description?",
}


class KeyRun(Config):
    """A run in the study."""

    name: str
    """Its label in tables."""
    folder: str
    """The folder of its evaluation when the study was built."""


class KeyItem(Config):
    """One comparison."""

    item: str
    """Its name in the page."""
    category: str
    """The suite's category of the prompt."""
    prompt: str
    """The prompt of both pictures."""
    seed: int
    """The seed of both pictures."""
    first: int = Field(ge=0)
    """Index of the run that drew the page's first picture."""
    second: int = Field(ge=0)
    """Index of the run that drew the second."""
    repeat_of: str | None = None
    """The comparison that this one repeats with swapped sides."""
    scores: dict[str, tuple[float | None, float | None]] = Field(default_factory=dict)
    """The two pictures' scores by metric; null means not scored."""


class AbKey(Config):
    """Identifies the pictures behind the votes of one study."""

    study: str
    """The study's id: a hash of everything that its page shows."""
    form: int
    """The format of page, key and votes."""
    suite: str
    """The suite of the prompts."""
    draw: int
    """The seed of the random choice of prompts, pairs, sides and order."""
    runs: tuple[KeyRun, ...] = Field(min_length=2)
    """The runs in the study."""
    items: tuple[KeyItem, ...] = Field(min_length=1)
    """The comparisons."""


def read_ab_key(path: Path) -> AbKey:
    """Read the key of a study. Raises RunError if the file is not a key."""
    found = read_json(path)
    if not isinstance(found, dict) or "study" not in found:
        raise RunError(f"{path} is not the key of a study: give the .key.json of `lavi ab build`")
    if found.get("form") != KEY_FORMAT:
        raise RunError(
            f"{path} has format {found.get('form')}, and this version of lavibridge reads {KEY_FORMAT}: "
            f"build the study again"
        )
    try:
        key = validate_config(AbKey, found, str(path))
    except RecipeError as error:
        raise RunError(str(error)) from None
    last, names = len(key.runs) - 1, {item.item for item in key.items}
    for item in key.items:
        if max(item.first, item.second) > last or item.repeat_of not in (None, *names):
            raise RunError(
                f"{path}: comparison '{item.item}' names a run or comparison that does not exist: use "
                f"the original file"
            )
    return key
