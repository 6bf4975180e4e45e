"""`lavi study`: a grid of recipes, trained, measured, and put into one table."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from lavibridge.study.cells import Cell
    from lavibridge.study.study import Study

_STUDY = typer.Argument(
    metavar="STUDY", help="A study's name (see `lavi show studies`) or a path to a YAML file."
)
_OUT = typer.Option(None, "--out", "-o", metavar="FOLDER", help="Where its cells lie.  [default: runs/STUDY]")
_ONLY = typer.Option(
    None,
    "--only",
    metavar="CELL",
    help="Only these cells: CONDITION, CONDITION/seed-S, or with *; may be repeated.",
)
_SOURCE = typer.Option(
    None,
    "--source",
    metavar="NAME=FOLDER",
    help="Read the model that the study calls NAME from FOLDER; may be repeated.",
)
_DRY = typer.Option(
    False, "--dry-run", help="Print every cell with its memory and time (`lavi plan`), and stop."
)
_DEVICE = typer.Option(
    "here", "--device", metavar="NAME", help="For --dry-run: a device such as h100, or `here`."
)
_COMMANDS = typer.Option(False, "--commands", help="Print one command for each cell, and stop.")
_REUSE = typer.Option(
    None,
    "--reuse",
    metavar="FOLDER",
    help="Take over cells of the same recipe from another study's folder; may be repeated.",
)
_TABLE = typer.Option(False, "--table", help="Make nothing; put what is finished into the table.")


def study(
    name: str = _STUDY,
    out: Path | None = _OUT,
    only: list[str] | None = _ONLY,
    source: list[str] | None = _SOURCE,
    reuse: list[Path] | None = _REUSE,
    dry_run: bool = _DRY,
    device: str = _DEVICE,
    commands: bool = _COMMANDS,
    table: bool = _TABLE,
) -> None:
    """Answer a question with many trainings: make every cell of a grid, and one table of all.

    \b
    lavi study world-read-outs --dry-run              what it takes
    lavi study world-read-outs                        run it, or continue it after a stop
    lavi study world-read-outs --commands | parallel -j 4
    lavi study world-read-outs --table                the table of what is finished so far
    lavi study my_study.yaml --only "t5-*" --out runs/mine
    lavi study world-ablation --reuse runs/world-language-models

    A cell is a condition with a seed. It is trained as by `lavi train`, measured as by `lavi evaluate`, and
    skipped when it is done. One that fails does not stop the others; it is named at the end (exit code 1).

    table.md, table.json, table.csv, contact_sheet.png and study.html go to the study's folder; the table is
    also printed. Every figure has an interval over prompts and seeds, every difference is paired.

    Without a network, HF_HUB_OFFLINE=1 keeps it from waiting for the hub.
    """
    if sum((dry_run, commands, table)) > 1:
        raise typer.BadParameter("--dry-run, --commands and --table are three different things: give one")
    from lavibridge.study.cells import choose_cells, expand_cells, load_study

    loaded = load_study(name)
    folder = out or Path("runs") / loaded.name
    sources = _sources(source or [])
    every = expand_cells(loaded, folder, sources)
    cells = choose_cells(every, only or [])
    if commands:
        from lavibridge.study.cell_commands import cell_commands

        print("\n".join(cell_commands(name, cells, folder, sources)))
    elif dry_run:
        from lavibridge.plan.devices import find_device
        from lavibridge.study.costs import cost_lines, estimate_cell_costs

        found = find_device(device)
        print("\n".join(cost_lines(estimate_cell_costs(loaded, cells, folder, found), found)))
    else:
        _make(loaded, every, cells, folder, reuse or [], is_whole=not only, only_table=table)


def _make(
    loaded: "Study",
    every: "Sequence[Cell]",
    cells: "Sequence[Cell]",
    folder: Path,
    reuse: list[Path],
    *,
    is_whole: bool,
    only_table: bool,
) -> None:
    """Make the cells, and the table where it is not left to a later call."""
    from contextlib import nullcontext

    from lavibridge.cli.evaluate import evaluation_device
    from lavibridge.core.lock import hold_lock
    from lavibridge.core.process_rank import rank_from_environment, require_single_process
    from lavibridge.study.finish_study import finish_study
    from lavibridge.study.reuse import reuse_cells
    from lavibridge.study.run_cells import cell_failures_error, run_cells

    part = rank_from_environment()
    if reuse or only_table:
        require_single_process("`lavi study` with --reuse or --table")
    # Named cells are locked one by one, so other processes can run the others.
    with hold_lock(folder) if is_whole and not only_table and part.world_size == 1 else nullcontext():
        reuse_cells(cells, folder, reuse, loaded.name)
        failures = [] if only_table else run_cells(loaded, cells, folder, part, evaluation_device())
    # Of cells that are made one by one, each leaves the table to the call that asks for it.
    if only_table or (is_whole and part.world_size == 1):
        print(finish_study(loaded, every, folder), end="")
    if failures:
        raise cell_failures_error(failures, len(cells))


def _sources(sources: list[str]) -> dict[str, str]:
    from lavibridge.core.errors import RecipeError
    from lavibridge.core.paths import expand_path

    found = {}
    for each in sources:
        name, equals, folder = each.partition("=")
        if not (name and equals and expand_path(folder).is_dir()):
            raise RecipeError(f"--source: '{each}' is no NAME=FOLDER with a folder that exists")
        found[name] = str(expand_path(folder).absolute())
    return found
