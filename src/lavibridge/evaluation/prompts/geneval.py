"""GenEval's prompts: the lines of its `evaluation_metadata.jsonl`, by tag."""

from collections.abc import Sequence
from typing import Any

from lavibridge.core.errors import DataError
from lavibridge.core.identity import cached_file_hash
from lavibridge.evaluation.base import Prompt
from lavibridge.evaluation.benchmark_files import find_benchmark_file
from lavibridge.evaluation.benchmarks.geneval import read_geneval_requirements
from lavibridge.evaluation.benchmarks.jsonl import read_jsonl_objects
from lavibridge.evaluation.prompts.base import PromptSource

_WHERE = "github.com/djghosh13/geneval, prompts/evaluation_metadata.jsonl"


class GenEvalPrompts(PromptSource):
    """553 prompts of six categories, each with its requirements."""

    class Config(PromptSource.Config):
        """The options of GenEval's prompts."""

        path: str | None = None
        """The file `evaluation_metadata.jsonl`."""

    config: "GenEvalPrompts.Config"

    def __init__(self, config: "GenEvalPrompts.Config") -> None:
        """Read the file. Raises DataError, which names the line, if one is invalid."""
        super().__init__(config)
        self.file = find_benchmark_file(config.path, "GenEval's file of prompts", _WHERE)
        self._prompts: dict[str, list[Prompt]] = {}
        for number, record in enumerate(read_jsonl_objects(self.file, ("tag", "prompt", "include"))):
            try:
                metadata = read_geneval_requirements(record)
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{self.file}: line {number + 1}: {error}") from None
            category, text = str(record["tag"]), str(record["prompt"])
            found = Prompt(category=category, text=text, metadata=metadata, name=f"{number:05d}")
            self._prompts.setdefault(category, []).append(found)

    @property
    def categories(self) -> tuple[str, ...]:
        """The tags, in the order of the file."""
        return tuple(self._prompts)

    def prompts(self, category: str, limit: int | None = None) -> Sequence[Prompt]:
        """The prompts of a tag with their requirements."""
        return self._prompts[category][:limit]

    def card(self) -> dict[str, Any]:
        """The file's hash."""
        return {**super().card(), "sha256": cached_file_hash(self.file)}
