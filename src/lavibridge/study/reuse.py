"""Reuses trained cells of another study that have the same recipe, data and models.

    FOLDER/CONDITION/seed-S  with the same recipe, trained  --copy-->  OUT/CONDITION'/seed-S

Keeps the other study's measurements if this study has the same suite options; measures the rest again.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from lavibridge.core.errors import RunError
from lavibridge.core.files import read_json, write_json
from lavibridge.core.lock import is_lock_file
from lavibridge.core.log import console
from lavibridge.study.cell_folder import CELL_FILE, cell_folder_differences, changed_cell_inputs
from lavibridge.study.cells import Cell
from lavibridge.training.checkpoints.checkpoint import is_run_trained


def reuse_cells(cells: Sequence[Cell], out: Path, folders: Sequence[Path], study: str) -> None:
    """Copy each cell that has not started from the first folder that has it trained.

    Raises RunError before copying anything if a folder holds no cell of a study.
    """
    found = [
        (folder, sorted(path.parent for path in folder.glob(f"*/seed-*/{CELL_FILE}"))) for folder in folders
    ]
    for folder, made in found:
        if not made:
            raise RunError(
                f"--reuse: {folder} holds no cell of a study (CONDITION/seed-S/{CELL_FILE}): give the folder "
                f"of a study"
            )
    for cell in cells:
        place = out / cell.name
        same = next((other for _, made in found for other in made if _is_same(cell, other)), None)
        if same is None or place.exists():
            continue
        partial = place.with_name(f".{place.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(
            same, partial, ignore=lambda _, names: [name for name in names if is_lock_file(Path(name))]
        )
        kept = read_json(partial / CELL_FILE)
        write_json(partial / CELL_FILE, {**kept, "study": study, "condition": cell.condition})
        os.replace(partial, place)
        console.print(f"{cell.name}: copied from {same}", soft_wrap=True)


def _is_same(cell: Cell, folder: Path) -> bool:
    is_made = cell.native or is_run_trained(folder, cell.recipe.training)
    return is_made and not cell_folder_differences(folder, cell) and not changed_cell_inputs(folder, cell)
