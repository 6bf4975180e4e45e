"""Runs a study: trains and evaluates each cell, skips finished work and resumes interrupted work.

A failed cell does not stop the others. Ctrl-C stops everything; the next call resumes.
"""

import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from lavibridge.core.errors import LaviError, RunError
from lavibridge.core.lock import hold_lock
from lavibridge.core.log import console
from lavibridge.core.process_rank import SINGLE_PROCESS, ProcessRank
from lavibridge.evaluation.evaluate import evaluate
from lavibridge.evaluation.suite import read_suite
from lavibridge.generation.pipeline import BridgePipeline
from lavibridge.study.cell_folder import (
    begin_cell_folder,
    changed_cell_inputs,
    check_cell_folder,
    is_cell_measured,
    is_cell_outdated,
    mark_cell_measured,
    suite_folder,
)
from lavibridge.study.cells import Cell
from lavibridge.study.study import Study
from lavibridge.training.checkpoints.checkpoint import is_run_trained
from lavibridge.training.run_folder import RECIPE_FILE, refuse_recipe_changes
from lavibridge.training.start_checks import check_start
from lavibridge.training.train import train


@dataclass(frozen=True, kw_only=True)
class _Failure:
    """A cell that failed."""

    cell: str
    reason: str


def run_cells(
    study: Study, cells: Sequence[Cell], out: Path, part: ProcessRank = SINGLE_PROCESS, device: str = "auto"
) -> list[_Failure]:
    """Run every unfinished cell; returns the failures with their reasons.

    One of several processes (`part`) trains together with the others and evaluates its share; all of them
    must get the same single cell, and each generates on its own `device`. Raises RunError before any work if
    a folder holds another recipe.
    """
    if part.world_size > 1 and len(cells) != 1:
        raise RunError(
            f"several processes (WORLD_SIZE={part.world_size}) can run only one cell together, but "
            f"{len(cells)} are selected: select one with --only CONDITION/seed-S"
        )
    for cell in cells:
        if not cell.native:
            check_start(cell.recipe, out / cell.name)
        check_cell_folder(out / cell.name, cell)
    for use in study.suites.values():
        read_suite(use.suite)
    failures = []
    for number, cell in enumerate(cells, start=1):
        try:
            refuse_recipe_changes(out / cell.name, changed_cell_inputs(out / cell.name, cell))
            if is_cell_done(study, cell, out) and not _is_outdated(study, cell, out):
                _say(f"[{number}/{len(cells)}] {cell.name}: already done")
                continue
            _say(f"[{number}/{len(cells)}] {cell.name}")
            with (
                hold_lock(out / cell.name) if part.world_size == 1 else nullcontext()
            ):  # several processes lock their own files
                _run_cell(study, cell, out, part, device)
        except LaviError as error:
            failures.append(_Failure(cell=cell.name, reason=str(error)))
        except Exception as error:  # an out-of-memory error in one cell must not stop the next
            console.print(traceback.format_exc())
            failures.append(_Failure(cell=cell.name, reason=f"{type(error).__name__}: {error}"))
        if failures and failures[-1].cell == cell.name:
            _say(f"{cell.name} failed: {failures[-1].reason}")
    return failures


def is_cell_done(study: Study, cell: Cell, out: Path) -> bool:
    """Whether a cell is trained and measured on every suite."""
    folder = out / cell.name
    is_made = cell.native or is_run_trained(folder, cell.recipe.training)
    return is_made and all(is_cell_measured(folder, key, use) for key, use in study.suites.items())


def _is_outdated(study: Study, cell: Cell, out: Path) -> bool:
    """Whether prompts or metrics have changed since a finished cell was measured."""
    return any(is_cell_outdated(out / cell.name, key, use) for key, use in study.suites.items())


def _run_cell(study: Study, cell: Cell, out: Path, part: ProcessRank, device: str) -> None:
    """Train the cell if needed, then evaluate the suites that are missing or out of date."""
    folder = out / cell.name
    if cell.native:
        begin_cell_folder(folder, cell, study.name)
        pipe = BridgePipeline.native(cell.recipe.vision.model_dump(), device=device)
    else:
        if not is_run_trained(folder, cell.recipe.training):
            train(cell.recipe, folder, resume=(folder / RECIPE_FILE).is_file())
        begin_cell_folder(folder, cell, study.name)
        pipe = BridgePipeline.from_pretrained(folder, device=device)
    for key, use in study.suites.items():
        if is_cell_measured(folder, key, use) and not is_cell_outdated(folder, key, use):
            continue
        found = evaluate(
            pipe,
            use.suite,
            suite_folder(folder, key),
            categories=use.categories,
            limit=use.limit,
            seed=cell.seed,
            num_inference_steps=use.steps,
            guidance_scale=use.guidance,
            quality=use.quality,
            prompts=use.prompts,
            metrics=use.metrics,
            part=part,
        )
        if "waiting" not in found:
            mark_cell_measured(folder, key, use)


def cell_failures_error(failures: Sequence[_Failure], count: int) -> RunError:
    """All failures as one error."""
    listed = "".join(f"\n  {each.cell}: {each.reason}" for each in failures)
    return RunError(f"{len(failures)} of {count} cells failed; run the same command to retry:{listed}")


def _say(text: str) -> None:
    console.print(text, soft_wrap=True)
