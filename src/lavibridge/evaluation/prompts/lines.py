"""Prompts from a text file, one a line, in one category."""

from collections.abc import Sequence
from typing import Any

from lavibridge.core.identity import file_hash
from lavibridge.evaluation.base import Prompt
from lavibridge.evaluation.files import find_file, read_lines
from lavibridge.evaluation.prompts.base import PromptSource


class LinePrompts(PromptSource):
    """Every line that holds anything is a prompt; the words may be anything."""

    class Config(PromptSource.Config):
        """The options of a file of lines."""

        path: str | None = None
        """The file, here or as hf://datasets/OWNER/NAME/FILE."""
        category: str = "prompts"
        """What their category is called."""
        origin: str = "wherever you keep your prompts"
        """Where the file comes from; said where it is absent."""

    config: "LinePrompts.Config"

    def __init__(self, config: "LinePrompts.Config") -> None:
        """Read the file; DataError where it is absent or no text."""
        super().__init__(config)
        self.path = find_file(config.path, "the file of prompts", config.origin)
        self.lines = read_lines(self.path)

    @property
    def categories(self) -> tuple[str, ...]:
        """The one."""
        return (self.config.category,)

    def prompts(self, category: str, limit: int | None = None) -> Sequence[Prompt]:
        """The lines in their order."""
        return [Prompt(category=category, text=line) for line in self.lines[:limit]]

    def card(self) -> dict[str, Any]:
        """The file's hash."""
        return {**super().card(), "sha256": file_hash(self.path)}
