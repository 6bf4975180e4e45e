"""T2I-CompBench's prompts: the lines of its `color_val.txt` and so on, parsed for the metrics."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from lavibridge.core.errors import DataError
from lavibridge.core.identity import cached_file_hash
from lavibridge.evaluation.base import Prompt
from lavibridge.evaluation.benchmark_files import find_benchmark_file, read_benchmark_lines
from lavibridge.evaluation.benchmarks import compbench
from lavibridge.evaluation.benchmarks.numeracy import read_numeracy_objects
from lavibridge.evaluation.prompts.base import PromptSource

_WHERE = "github.com/Karine-Huang/T2I-CompBench, examples/dataset"
Category = Literal["color", "shape", "texture", "spatial", "numeracy", "non-spatial", "complex"]
_PARTS = ("spatial", "action")
_ALL: tuple[Category, ...] = ("color", "shape", "texture", "spatial", "numeracy", "non-spatial", "complex")


class CompBenchPrompts(PromptSource):
    """300 prompts in each of seven categories."""

    class Config(PromptSource.Config):
        """The options of T2I-CompBench's prompts."""

        path: str | None = None
        """The folder with `color_val.txt`, `complex_val_spatial.txt`, `new_objects.txt` and so on."""
        categories: tuple[Category, ...] = Field(default=_ALL, min_length=1)
        """The categories to use; files of others may be missing."""
        parses: str | None = None
        """A JSON file with another parser's phrases and objects by prompt (benchmarks/compbench.py). Closed
        word lists parse the prompts that it lacks."""

    config: "CompBenchPrompts.Config"

    def __init__(self, config: "CompBenchPrompts.Config") -> None:
        """Read the files. Raises DataError, which names the line, if no metric can score a prompt."""
        super().__init__(config)
        self.folder = find_benchmark_file(config.path, "T2I-CompBench's folder of prompts", _WHERE)
        self._files: list[Path] = []
        self._parses: dict[str, compbench.CompBenchParse] = {}
        if config.parses is not None:
            path = find_benchmark_file(
                config.parses, "the parses of T2I-CompBench's prompts", "a parser such as spaCy"
            )
            self._parses = compbench.load_compbench_parses(path)
            self._files.append(path)
        self._prompts = {str(category): self._read(category) for category in config.categories}

    @property
    def categories(self) -> tuple[str, ...]:
        """The chosen categories."""
        return self.config.categories

    def prompts(self, category: str, limit: int | None = None) -> Sequence[Prompt]:
        """The prompts of a category with their metadata."""
        return self._prompts[category][:limit]

    def card(self) -> dict[str, Any]:
        """The files' hashes."""
        return {**super().card(), "sha256": {path.name: cached_file_hash(path) for path in self._files}}

    def _read(self, category: Category) -> list[Prompt]:
        name = f"{category.replace('-', '_')}_val.txt"
        lines, parse = self._lines(name), self._parser(category)
        found: list[Prompt] = []
        for number, line in enumerate(lines):
            try:
                found.append(Prompt(category=category, text=line, metadata=parse(line), name=f"{number:06d}"))
            except ValueError as error:
                raise DataError(f"{self.folder / name}: line {number + 1}: '{line[:80]}' {error}") from None
        return found

    def _parser(self, category: Category) -> Callable[[str], object]:
        """The parser of a category's prompts, which raises ValueError for one that it cannot use."""
        if category == "non-spatial":
            return lambda prompt: None
        if category == "spatial":
            return lambda prompt: compbench.require_compbench_relation(prompt, self._parse(prompt))
        if category == "numeracy":
            things = self._things()
            return lambda prompt: compbench.require_compbench_counts(prompt, things)
        if category == "complex":
            files = [self._lines(f"complex_val_{part}.txt") for part in _PARTS]
            lists = [{compbench.compbench_key(line) for line in lines} for lines in files]
            return lambda prompt: compbench.read_compbench_complex(prompt, self._parse(prompt), *lists)
        return lambda prompt: compbench.read_compbench_phrases(prompt, self._parse(prompt))

    def _parse(self, prompt: str) -> compbench.CompBenchParse:
        return self._parses.get(prompt, compbench.CompBenchParse())

    def _things(self) -> dict[str, str]:
        path = self._file("new_objects.txt")
        try:
            return read_numeracy_objects("\n".join(read_benchmark_lines(path)))
        except ValueError as error:
            raise DataError(f"{path}: {error}") from None

    def _lines(self, name: str) -> list[str]:
        return read_benchmark_lines(self._file(name))

    def _file(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            raise DataError(f"there is no {name} in {self.folder}; get it from {_WHERE}")
        self._files.append(path)
        return path
