"""Prompts from a table (CSV, TSV or JSON lines) with a column of prompts and optionally one of categories."""

import csv
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from lavibridge.core.errors import DataError, LaviError, did_you_mean
from lavibridge.core.files import parse_json
from lavibridge.core.identity import cached_file_hash
from lavibridge.evaluation.base import Prompt
from lavibridge.evaluation.benchmark_files import find_benchmark_file, read_benchmark_text
from lavibridge.evaluation.prompts.base import PromptSource


class TablePrompts(PromptSource):
    """One prompt per row; categories in order of first appearance."""

    class Config(PromptSource.Config):
        """The options of a table of prompts."""

        path: str | None = None
        """The file (.csv, .tsv or .jsonl), here or as hf://datasets/OWNER/NAME/FILE."""
        prompt: str = "prompt"
        """The column of prompts."""
        category: str | None = None
        """The column of categories. None puts all prompts into one category, `prompts`."""
        origin: str = "wherever you keep your prompts"
        """Where to get the file, for the error if it is missing."""

    config: "TablePrompts.Config"

    def __init__(self, config: "TablePrompts.Config") -> None:
        """Read the file. Raises DataError if it is missing, damaged or lacks a column."""
        super().__init__(config)
        self.path = find_benchmark_file(config.path, "the table of prompts", config.origin)
        self._by_category: dict[str, list[Prompt]] = {}
        for number, row in enumerate(_rows(self.path), start=1):
            text, category = self._read(row, number)
            found = Prompt(category=category, text=text, name=str(number))
            self._by_category.setdefault(category, []).append(found)
        if not self._by_category:
            raise DataError(f"{self.path} has no prompts: expected one per row")

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories of the file."""
        return tuple(self._by_category)

    def prompts(self, category: str, limit: int | None = None) -> Sequence[Prompt]:
        """The category's prompts in order."""
        return self._by_category[category][:limit]

    def card(self) -> dict[str, Any]:
        """The file's hash, and the columns."""
        columns = {"prompt": self.config.prompt, "category": self.config.category}
        return {**super().card(), "sha256": cached_file_hash(self.path), "columns": columns}

    def _read(self, row: dict[str, Any], number: int) -> tuple[str, str]:
        columns = [name for name in (self.config.prompt, self.config.category) if name is not None]
        for name in columns:
            if name not in row:
                known = tuple(str(key) for key in row)
                raise DataError(
                    f"{self.path}, row {number}: there is no column '{name}'{did_you_mean(name, known)} "
                    f"(there are {', '.join(known)})"
                )
        text, *category = (str(row[name] or "").strip() for name in columns)
        if not text:
            raise DataError(f"{self.path}, row {number}: the prompt is empty")
        return text, category[0] if category else "prompts"


def _rows(path: Path) -> list[dict[str, Any]]:
    text = read_benchmark_text(path)
    if path.suffix in (".csv", ".tsv"):
        # TSV files of prompts contain literal quotes.
        style: Any = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if path.suffix == ".tsv" else {}
        return list(csv.DictReader(StringIO(text, newline=""), **style))
    if path.suffix != ".jsonl":
        raise DataError(f"{path} is not a .csv, .tsv or .jsonl file")
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                row = parse_json(line, f"{path}, line {number}")
            except LaviError as error:
                raise DataError(str(error)) from None
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number} must be a JSON object")
            rows.append(row)
    return rows
