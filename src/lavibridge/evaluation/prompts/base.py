"""The contract of prompt sources: categories with fixed prompts.

`Source(config)` reads and checks the files. Raises DataError, which names the fault and the file's origin.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from lavibridge.core import registry
from lavibridge.core.config import Config as BaseConfig
from lavibridge.evaluation.base import Prompt


class PromptSource(ABC):
    """Prompts by category; the name of its file in `evaluation/prompts` is its kind."""

    class Config(BaseConfig):
        """The options of a source."""

    config: "PromptSource.Config"

    def __init__(self, config: "PromptSource.Config") -> None:
        """Read and check the files."""
        self.config = config

    @property
    @abstractmethod
    def categories(self) -> tuple[str, ...]:
        """The names of the categories, in order."""

    @abstractmethod
    def prompts(self, category: str, limit: int | None = None) -> Sequence[Prompt]:
        """The prompts of a category, or the first `limit` of them."""

    def card(self) -> dict[str, Any]:
        """The identity of the prompts as JSON, so that results of different prompts never mix.

        A source that reads files adds their SHA-256 and no paths.
        """
        return {"kind": registry.kind_of("evaluation.prompts", self)}
