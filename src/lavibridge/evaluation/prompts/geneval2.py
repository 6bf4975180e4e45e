"""GenEval 2's prompts and questions: the lines of its `geneval2_data.jsonl`, by number of atoms."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lavibridge.core.errors import DataError
from lavibridge.core.identity import cached_file_hash
from lavibridge.evaluation.base import Prompt
from lavibridge.evaluation.benchmark_files import find_benchmark_file
from lavibridge.evaluation.benchmarks.jsonl import read_jsonl_objects
from lavibridge.evaluation.benchmarks.soft_tifa import TifaAtom, TifaAtoms
from lavibridge.evaluation.prompts.base import PromptSource

_WHERE = "github.com/facebookresearch/GenEval2, geneval2_data.jsonl (CC BY-NC 4.0)"
_KEYS = ("prompt", "atom_count", "vqa_list", "skills")


class GenEval2Prompts(PromptSource):
    """800 prompts of three to ten atoms; categories "3 atoms" to "10 atoms"."""

    class Config(PromptSource.Config):
        """The options of GenEval 2's prompts."""

        path: str | None = None
        """The file `geneval2_data.jsonl`."""

    config: "GenEval2Prompts.Config"

    def __init__(self, config: "GenEval2Prompts.Config") -> None:
        """Read the file. Raises DataError, which names the line, if one is invalid."""
        super().__init__(config)
        self.file = find_benchmark_file(config.path, "GenEval 2's file of prompts", _WHERE)
        self._prompts: dict[int, list[Prompt]] = {}
        for number, record in enumerate(read_jsonl_objects(self.file, _KEYS)):
            count, metadata = record["atom_count"], _atoms(record, self.file, number + 1)
            found = Prompt(
                category=f"{count} atoms", text=str(record["prompt"]), metadata=metadata, name=f"{number:05d}"
            )
            self._prompts.setdefault(count, []).append(found)

    @property
    def categories(self) -> tuple[str, ...]:
        """The numbers of atoms, in ascending order."""
        return tuple(f"{count} atoms" for count in sorted(self._prompts))

    def prompts(self, category: str, limit: int | None = None) -> Sequence[Prompt]:
        """The prompts with this number of atoms, with their questions."""
        return self._prompts[int(category.split()[0])][:limit]

    def card(self) -> dict[str, Any]:
        """The file's hash."""
        return {**super().card(), "sha256": cached_file_hash(self.file)}


def _atoms(record: Mapping[str, Any], file: Path, line: int) -> TifaAtoms:
    """The questions of a prompt, each with its answer and skill."""
    pairs, skills, count = record["vqa_list"], record["skills"], record["atom_count"]
    is_right = isinstance(pairs, list) and isinstance(skills, list) and isinstance(count, int) and pairs
    if not is_right or len(pairs) != len(skills) or any(not _is_pair(pair) for pair in pairs):
        raise DataError(
            f"{file}: line {line}: expected [question, answer] pairs in `vqa_list`, as many words in "
            f"`skills`, "
            "and a number in `atom_count`"
        )
    atoms = [
        TifaAtom(question=q, answer=a, skill=str(skill)) for (q, a), skill in zip(pairs, skills, strict=True)
    ]
    return TifaAtoms(atoms=tuple(atoms))


def _is_pair(value: object) -> bool:
    return (
        isinstance(value, list) and len(value) == 2 and all(isinstance(each, str) and each for each in value)
    )
