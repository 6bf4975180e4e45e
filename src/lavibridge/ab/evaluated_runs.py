"""Reads the evaluations of the runs in a study, and the pictures that all of them share.

RUN/evaluation/SUITE/records.jsonl, images/...      the same prompts and seeds
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from lavibridge.core.errors import DataError, RunError
from lavibridge.data.pictures.decoding import decode_picture_file
from lavibridge.evaluation.compare import read_comparable_evaluations
from lavibridge.evaluation.generated_images import check_generated_image
from lavibridge.evaluation.provenance import matches_run, read_results, read_scored_records
from lavibridge.evaluation.records import Record, RecordKey


@dataclass(frozen=True, kw_only=True)
class EvaluatedRun:
    """A run with the records of its evaluation."""

    name: str
    folder: Path
    records: dict[RecordKey, Record]
    cards: Mapping[str, Any]
    """Card by metric."""

    def picture(self, key: RecordKey) -> Image.Image:
        """The picture of a prompt and seed; RunError names a missing or damaged file."""
        path = self.folder / self.records[key].file
        if self.records[key].undrawn:
            raise RunError(
                f"'{self.name}' has no picture of '{key[1][:60]}' ({self.records[key].undrawn}): choose "
                "other prompts (--category, --limit) or another bridge"
            )
        try:
            picture = decode_picture_file(path)
            check_generated_image(self.folder, self.records[key])
        except DataError as error:
            raise RunError(f"{path}: {error}; run `lavi evaluate` again to draw it") from None
        return picture


def read_evaluated_runs(runs: Sequence[Path], suite: str) -> tuple[list[EvaluatedRun], str]:
    """The evaluations, and the suite's name.

    Raises RunError for fewer than two runs, a duplicate, a run without an evaluation on the suite, or
    evaluations of different prompts and seeds.
    """
    if len(runs) < 2:
        raise RunError("a study compares at least two runs: give another one")
    folders = [_evaluation(run, suite) for run in runs]
    for place, folder in enumerate(folders):
        if folder.resolve() in {each.resolve() for each in folders[:place]}:
            raise RunError(f"{runs[place]} is given twice: name each run once")
    results = [read_comparable_evaluations(folders[0], folder)[1] for folder in folders]
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


def keys_shared_by_runs(evaluated: Sequence[EvaluatedRun]) -> list[RecordKey]:
    """The prompts and seeds that all of them drew, in the first one's order; RunError for none."""
    found = [key for key in evaluated[0].records if all(key in each.records for each in evaluated)]
    if not found:
        names = ", ".join(each.name for each in evaluated)
        raise RunError(
            f"{names} share no prompt and seed: evaluate them with the same --category and --limit"
        )
    return found


def _evaluation(run: Path, suite: str) -> Path:
    """The folder of a run's evaluation, or the folder itself if it is one."""
    below = run / "evaluation" / Path(suite).stem
    if below.is_dir():
        if not matches_run(run, read_results(below)):
            raise RunError(
                f"{below} is of an earlier checkpoint of {run}: evaluate it again, or give {below} itself"
            )
        return below
    if (run / "records.jsonl").is_file():
        return run
    if not run.is_dir():
        raise RunError(f"there is no folder '{run}'")
    known = sorted(path.name for path in (run / "evaluation").glob("*") if path.is_dir())
    there = f" (found {', '.join(known)}: choose with --suite)" if known else ""
    raise RunError(
        f"{run} has no evaluation on the suite '{suite}'{there}: run lavi evaluate {run} --suite {suite}"
    )


def _name(folder: Path) -> str:
    """The run's name if `lavi evaluate` chose the folder, else the folder."""
    full = folder.absolute()
    return full.parent.parent.name if full.parent.name == "evaluation" else folder.as_posix()
