"""DPG-Bench's prompts and questions: the lines of its `dpg_bench.csv`, one question each."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lavibridge.core.errors import DataError
from lavibridge.core.identity import cached_file_hash
from lavibridge.evaluation.base import Prompt
from lavibridge.evaluation.benchmark_files import find_benchmark_file
from lavibridge.evaluation.benchmarks.dsg import DsgQuestion, DsgQuestionGraph
from lavibridge.evaluation.prompts.base import PromptSource

_WHERE = "github.com/TencentQQGYLab/ELLA, dpg_bench/dpg_bench.csv"
_COLUMNS = ("item_id", "text", "proposition_id", "dependency", "tuple", "question_natural_language")
_CATEGORY = "dense"


class DpgPrompts(PromptSource):
    """1065 long prompts; questions about entities, attributes, relations, the whole picture and other
    aspects."""

    class Config(PromptSource.Config):
        """The options of DPG-Bench's prompts."""

        path: str | None = None
        """The file `dpg_bench.csv`, or its folder."""

    config: "DpgPrompts.Config"

    def __init__(self, config: "DpgPrompts.Config") -> None:
        """Read the file. Raises DataError, which names the fault, if it is invalid."""
        super().__init__(config)
        found = find_benchmark_file(config.path, "DPG-Bench's file of prompts and questions", _WHERE)
        self.file = found / "dpg_bench.csv" if found.is_dir() else found
        if not self.file.is_file():
            raise DataError(f"there is no dpg_bench.csv in {found}; get it from {_WHERE}")
        texts: dict[str, str] = {}
        questions: dict[str, list[DsgQuestion]] = {}
        for line, row in _rows(self.file):
            name = row["item_id"]
            if texts.setdefault(name, row["text"]) != (row["text"] or texts[name]) or not texts[name]:
                raise DataError(
                    f"{self.file}: line {line}: item '{name}' has no text, or another text than before"
                )
            questions.setdefault(name, []).append(_question(row, self.file, line))
        self._prompts = [
            Prompt(
                category=_CATEGORY,
                text=text,
                metadata=DsgQuestionGraph(questions=tuple(questions[name]), opens_file=place == 0),
                name=name,
            )
            for place, (name, text) in enumerate(texts.items())
        ]

    @property
    def categories(self) -> tuple[str, ...]:
        """One category; the metric distinguishes questions by their own categories."""
        return (_CATEGORY,)

    def prompts(self, category: str, limit: int | None = None) -> Sequence[Prompt]:
        """The prompts with their questions."""
        return self._prompts[:limit]

    def card(self) -> dict[str, Any]:
        """The file's hash."""
        return {**super().card(), "sha256": cached_file_hash(self.file)}


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yield the rows of the file, each with the number of its last line."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        try:
            lacking = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
            if lacking:
                raise DataError(f"{path} has no column {', '.join(lacking)}; get it from {_WHERE}")
            for row in reader:
                if any(not row[column] for column in _COLUMNS if column != "text"):
                    raise DataError(f"{path}: line {reader.line_num} has an empty column")
                yield reader.line_num, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path} is not a CSV table: {error}") from None
    if reader.line_num < 2:
        raise DataError(f"{path} holds no questions")


def _question(row: Mapping[str, str], path: Path, line: int) -> DsgQuestion:
    """A question; its tuple starts with its category: "entity - whole (car)"."""
    try:
        number = int(row["proposition_id"])
        parents = tuple(int(parent) for parent in row["dependency"].split(","))
    except ValueError:
        raise DataError(
            f"{path}: line {line}: expected a number in `proposition_id` and comma-separated numbers in "
            f"`dependency`, "
            f"found '{row['proposition_id']}' and '{row['dependency']}'"
        ) from None
    category = row["tuple"].split("(")[0].split("-")[0].strip()
    return DsgQuestion(
        number=number,
        text=row["question_natural_language"],
        category=category,
        parents=tuple(parent for parent in parents if parent != 0),
    )
