"""WISE_Verified: what a prompt's picture has to show, the six categories, and the overall score.

    overall = 0.40 culture + 0.12 (time + space + biology + physics + chemistry)

The published script averages the scores of a category over its prompts, then weights the categories.
Niu et al. 2025, WISE, arXiv 2503.07265; the release WISE_Verified of April 2026 made the score binary and
gave it an open judge.
"""

from dataclasses import dataclass
from types import MappingProxyType

WISE_WEIGHTS = MappingProxyType(
    {"culture": 0.40, "time": 0.12, "space": 0.12, "biology": 0.12, "physics": 0.12, "chemistry": 0.12}
)
"""The weight of each category in the overall score; the categories have 400 and five times 120 prompts."""

_LAST_IDS = MappingProxyType(
    {"culture": 400, "time": 520, "space": 640, "biology": 760, "physics": 880, "chemistry": 1000}
)


@dataclass(frozen=True, kw_only=True)
class WiseExplanation:
    """What the picture of a prompt has to show, which the prompt itself leaves to the reader's knowledge."""

    text: str


def wise_category(prompt_id: int) -> str | None:
    """The category of a prompt by its number, 1 to 1000; None for another number."""
    if prompt_id < 1:
        return None
    return next((name for name, last in _LAST_IDS.items() if prompt_id <= last), None)
