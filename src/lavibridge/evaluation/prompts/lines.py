"""Prompts from a text file, one per line, in one category."""

from collections.abc import Sequence
from typing import Any

from lavibridge.core.identity import cached_file_hash
from lavibridge.evaluation.base import Prompt
from lavibridge.evaluation.benchmark_files import find_benchmark_file, read_benchmark_lines
from lavibridge.evaluation.prompts.base import PromptSource


class LinePrompts(PromptSource):
    """Every non-empty line is a prompt."""

    class Config(PromptSource.Config):
        """The options of a file of lines."""

        path: str | None = None
        """The file: a path or hf://datasets/OWNER/NAME/FILE."""
        category: str = "prompts"
        """The name of the category."""
        origin: str = "wherever you keep your prompts"
        """Where to get the file, for the error if it is missing."""

    config: "LinePrompts.Config"

    def __init__(self, config: "LinePrompts.Config") -> None:
        """Read the file. Raises DataError if it is missing or not text."""
        super().__init__(config)
        self.path = find_benchmark_file(config.path, "the file of prompts", config.origin)
        self.lines = read_benchmark_lines(self.path)

    @property
    def categories(self) -> tuple[str, ...]:
        """The only category."""
        return (self.config.category,)

    def prompts(self, category: str, limit: int | None = None) -> Sequence[Prompt]:
        """The lines in order."""
        return [Prompt(category=category, text=line) for line in self.lines[:limit]]

    def card(self) -> dict[str, Any]:
        """The file's hash."""
        return {**super().card(), "sha256": cached_file_hash(self.path)}
