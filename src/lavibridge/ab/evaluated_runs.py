"""The runs that take part: their evaluations of one suite, and the pictures that all of them have.

RUN/evaluation/SUITE/records.jsonl, images/...      the same prompts from the same noises
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from lavibridge.core.errors import DataError, RunError
from lavibridge.data.pictures.decoding import read_picture
from lavibridge.evaluation.compare import read_comparable
from lavibridge.evaluation.draw import check_drawn
from lavibridge.evaluation.provenance import matches_run, read_results, read_scored_records
from lavibridge.evaluation.records import Key, Record


@dataclass(frozen=True, kw_only=True)
class EvaluatedRun:
    """A run with the records of its evaluation."""

    name: str
    folder: Path
    records: dict[Key, Record]
    cards: Mapping[str, Any]
    """By metric, what its scores depend on."""

    def picture(self, key: Key) -> Image.Image:
        """The picture of a prompt and noise; RunError names the file that is missing or damaged."""
        path = self.folder / self.records[key].file
        if self.records[key].undrawn:
            raise RunError(
                f"'{self.name}' has no picture of '{key[1][:60]}', as {self.records[key].undrawn}: choose "
                "other prompts (--category, --limit), or another bridge"
            )
        try:
            picture = read_picture(path)
            check_drawn(self.folder, self.records[key])
        except DataError as error:
            raise RunError(
                f"{path}: {error}; `lavi evaluate` draws what is missing or damaged again"
            ) from None
        return picture


def read_evaluated_runs(runs: Sequence[Path], suite: str) -> tuple[list[EvaluatedRun], str]:
    """The evaluations, and the suite's name.

    RunError where there are fewer than two, one is named twice, one was not evaluated on the suite, or they
    are not of the same prompts and noises.
    """
    if len(runs) < 2:
        raise RunError("a study compares two runs or more: name another")
    folders = [_evaluation(run, suite) for run in runs]
    for place, folder in enumerate(folders):
        if folder.resolve() in {each.resolve() for each in folders[:place]}:
            raise RunError(f"{runs[place]} is named twice: pictures would be compared with themselves")
    results = [read_comparable(folders[0], folder)[1] for folder in folders]
    names = [_name(folder) for folder in folders]
    if len(set(names)) < len(names):
        names = [folder.as_posix() for folder in folders]
    found = [
        EvaluatedRun(
            name=name,
            folder=folder,
            records=read_scored_records(folder, each),
            cards={metric: entry["card"] for metric, entry in each["metrics"].items()},
        )
        for name, folder, each in zip(names, folders, results, strict=True)
    ]
    return found, str(results[0]["suite"])


def shared_keys(evaluated: Sequence[EvaluatedRun]) -> list[Key]:
    """The prompts and noises that all of them drew, in the first one's order; RunError for none."""
    found = [key for key in evaluated[0].records if all(key in each.records for each in evaluated)]
    if not found:
        names = ", ".join(each.name for each in evaluated)
        raise RunError(
            f"{names} share no prompt and noise: evaluate them with the same --category and --limit"
        )
    return found


def _evaluation(run: Path, suite: str) -> Path:
    """Where a run's evaluation lies, or the folder itself if it is one."""
    below = run / "evaluation" / Path(suite).stem
    if below.is_dir():
        if not matches_run(run, read_results(below)):
            raise RunError(
                f"{below} is of {run} before more training: evaluate it anew, or name {below} itself"
            )
        return below
    if (run / "records.jsonl").is_file():
        return run
    if not run.is_dir():
        raise RunError(f"there is no folder '{run}'")
    known = sorted(path.name for path in (run / "evaluation").glob("*") if path.is_dir())
    there = f" (there is {', '.join(known)}: name it with --suite)" if known else ""
    raise RunError(
        f"{run} was not evaluated on the suite '{suite}'{there}: lavi evaluate {run} --suite {suite}"
    )


def _name(folder: Path) -> str:
    """The run's own name, where the folder is one that `lavi evaluate` chose."""
    full = folder.absolute()
    return full.parent.parent.name if full.parent.name == "evaluation" else folder.as_posix()
