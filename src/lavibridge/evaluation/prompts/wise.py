"""WISE_Verified's prompts with their explanations: its file `merge.json`, or its folder `data_verified`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lavibridge.core.errors import DataError, LaviError
from lavibridge.core.files import parse_json
from lavibridge.core.identity import cached_file_hash
from lavibridge.evaluation.base import Prompt
from lavibridge.evaluation.benchmark_files import find_benchmark_file, read_benchmark_text
from lavibridge.evaluation.benchmarks.wise import WISE_WEIGHTS, WiseExplanation, wise_category
from lavibridge.evaluation.prompts.base import PromptSource

_WHERE = "github.com/PKU-YuanGroup/WISE, data_verified/merge.json"
_KEYS = ("prompt_id", "Prompt", "Explanation")


class WisePrompts(PromptSource):
    """1000 prompts whose picture takes knowledge of the world; categories culture, time, space, biology,
    physics and chemistry."""

    class Config(PromptSource.Config):
        """The options of WISE's prompts."""

        path: str | None = None
        """The file `merge.json`, or its folder."""

    config: "WisePrompts.Config"

    def __init__(self, config: "WisePrompts.Config") -> None:
        """Read the file. Raises DataError, which names the record, if one is invalid."""
        super().__init__(config)
        found = find_benchmark_file(config.path, "WISE's file of prompts", _WHERE)
        self.file = found / "merge.json" if found.is_dir() else found
        if not self.file.is_file():
            raise DataError(f"there is no merge.json in {found}; get it from {_WHERE}")
        self._prompts: dict[str, list[Prompt]] = {}
        numbers = set[int]()
        for place, record in enumerate(_records(self.file), 1):
            prompt = _prompt(record, f"{self.file}: record {place}")
            number = int(prompt.name)
            if number in numbers:
                raise DataError(f"{self.file}: record {place}: the prompt_id {number} appears twice")
            numbers.add(number)
            self._prompts.setdefault(prompt.category, []).append(prompt)

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories that the file has, in the published order."""
        return tuple(name for name in WISE_WEIGHTS if name in self._prompts)

    def prompts(self, category: str, limit: int | None = None) -> Sequence[Prompt]:
        """The prompts of a category, with their explanations."""
        return self._prompts[category][:limit]

    def card(self) -> dict[str, Any]:
        """The file's hash."""
        return {**super().card(), "sha256": cached_file_hash(self.file)}


def _records(file: Path) -> list[Any]:
    try:
        found = parse_json(read_benchmark_text(file), str(file))
    except LaviError as error:
        raise DataError(f"{error}; get it from {_WHERE}") from None
    if not isinstance(found, list) or not found:
        raise DataError(f"{file} must be a list of prompts; get it from {_WHERE}")
    return found


def _prompt(record: Any, where: str) -> Prompt:
    lacking = [key for key in _KEYS if not isinstance(record, dict) or key not in record]
    if lacking:
        raise DataError(f"{where} must be an object with {', '.join(_KEYS)}: it lacks {lacking[0]}")
    number, text, explanation = (record[key] for key in _KEYS)
    is_number = isinstance(number, int) and not isinstance(number, bool)
    category = wise_category(number) if is_number else None
    if category is None:
        raise DataError(f"{where}: expected a prompt_id from 1 to 1000, found {number!r}")
    for key, value in (("Prompt", text), ("Explanation", explanation)):
        if not isinstance(value, str) or not value.strip():
            raise DataError(f"{where}: expected a text in {key}, found {value!r}")
    return Prompt(
        category=category, text=text, metadata=WiseExplanation(text=explanation), name=f"{number:04d}"
    )
