"""What every source of prompts promises: categories, and the prompts of each, always the same ones.

A source is made as `Source(config)`, which reads and checks its files: DataError says what is missing or
wrong, and where to get it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from lavibridge.core import registry
from lavibridge.core.config import Config as BaseConfig
from lavibridge.evaluation.base import Prompt


class PromptSource(ABC):
    """Prompts by category; its file in `evaluation/prompts` is its kind."""

    class Config(BaseConfig):
        """The options of a source."""

    config: "PromptSource.Config"

    def __init__(self, config: "PromptSource.Config") -> None:
        """Read and check the files."""
        self.config = config

    @property
    @abstractmethod
    def categories(self) -> tuple[str, ...]:
        """Names of the categories, in their order."""

    @abstractmethod
    def prompts(self, category: str, limit: int | None = None) -> Sequence[Prompt]:
        """The prompts of a category, or the first `limit` of them."""

    def card(self) -> dict[str, Any]:
        """Which prompts they are, as JSON: results of different prompts are never mixed.

        A source that reads files adds their SHA-256, and no paths.
        """
        return {"kind": registry.kind_of("evaluation.prompts", self)}
