"""Contact sheet of a study: all conditions side by side, with the same prompts and seeds.

          condition   condition            rows: the first prompts of each category
prompt    picture     picture              seed: the one that most conditions have finished
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lavibridge.data.pictures.decoding import decode_picture_file
from lavibridge.evaluation.base import Task
from lavibridge.generation.contact_sheet import contact_sheet
from lavibridge.generation.image_files import encode_png, save_png
from lavibridge.study.cell_folder import suite_folder
from lavibridge.study.cells import Cell
from lavibridge.study.scores import CellScores, FinishedScores
from lavibridge.study.study import Study

_SIDE = 128
"""Maximum pixels per side of a picture in the page."""


@dataclass(frozen=True, kw_only=True)
class _SheetImage:
    """One picture of the sheet; `picture` is None if the condition is not finished."""

    condition: str
    picture: Image.Image | None
    verdict: str
    """`right` or `wrong` by the exact checker, `not drawn`, or empty."""

    @property
    def source(self) -> str:
        """Data URI."""
        if self.picture is None:
            return ""
        return "data:image/png;base64," + base64.b64encode(encode_png(self.picture)).decode("ascii")


@dataclass(frozen=True, kw_only=True)
class SheetRow:
    """A prompt and each condition's picture of it."""

    category: str
    prompt: str
    images: tuple[_SheetImage, ...]


def study_sheet_rows(
    study: Study, cells: Sequence[Cell], finished: FinishedScores, out: Path
) -> list[SheetRow]:
    """The first prompts of each category of each suite, at the seed that most conditions have finished."""
    rows = []
    for key in study.suites:
        seed = _seed(study, finished, key)
        if seed is None or study.sheet == 0:
            continue
        mine = [cell for cell in cells if cell.seed == seed]
        by_cell = {cell.condition: finished[cell.condition, seed].get(key) for cell in mine}
        tasks = next(measured.tasks for measured in by_cell.values() if measured is not None)
        for task in _first(tasks, study.sheet):
            images = tuple(
                _displayed(cell, task, by_cell[cell.condition], suite_folder(out / cell.name, key))
                for cell in mine
            )
            rows.append(SheetRow(category=task.category, prompt=task.prompt, images=images))
    return rows


def save_study_sheet(rows: Sequence[SheetRow], labels: Mapping[str, str], path: Path) -> None:
    """Save the rows as one PNG; a grey square marks an unfinished condition."""
    empty = Image.new("RGB", (_SIDE, _SIDE), (224, 224, 224))
    names = [labels[image.condition] for image in rows[0].images]
    grid = [[empty if each.picture is None else each.picture for each in row.images] for row in rows]
    prompts = [row.prompt for row in rows]
    description = (
        f"Rows: {'; '.join(prompts)}. Columns: {'; '.join(names)}. Every column uses the same seeds."
    )
    save_png(path, contact_sheet(grid, prompts, names), {"description": description})


def _seed(study: Study, finished: FinishedScores, key: str) -> int | None:
    """The seed that most conditions have finished, the first of a tie."""
    counts = {
        seed: sum(key in by_suite for (_, other), by_suite in finished.items() if other == seed)
        for seed in study.seeds
    }
    best = max(study.seeds, key=lambda seed: counts[seed])
    return best if counts[best] else None


def _first(tasks: Sequence[Task], count: int) -> list[Task]:
    """The first prompts of each category, one seed each."""
    kept: dict[str, dict[str, Task]] = {}
    for task in tasks:
        of_category = kept.setdefault(task.category, {})
        if len(of_category) < count:
            of_category.setdefault(task.prompt, task)
    return [task for each in kept.values() for task in each.values()]


def _displayed(cell: Cell, task: Task, measured: CellScores | None, folder: Path) -> _SheetImage:
    if measured is None:
        return _SheetImage(condition=cell.condition, picture=None, verdict="")
    if measured.records[task.key].undrawn:
        return _SheetImage(condition=cell.condition, picture=None, verdict="not drawn")
    picture = decode_picture_file(folder / task.file)
    picture.thumbnail((_SIDE, _SIDE))
    score = measured.records[task.key].scores.get("world")
    verdict = "" if score is None else "right" if score == 1 else "wrong"
    return _SheetImage(condition=cell.condition, picture=picture, verdict=verdict)
