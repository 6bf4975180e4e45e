"""`lavi study`: trains and evaluates a grid of recipes, and puts the scores into one table."""

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
_OUT = typer.Option(None, "--out", "-o", metavar="FOLDER", help="Folder of the cells.  [default: runs/STUDY]")
_ONLY = typer.Option(
    None,
    "--only",
    metavar="CELL",
    help="Only these cells: CONDITION, CONDITION/seed-S, or a pattern with *; repeatable.",
)
_SOURCE = typer.Option(
    None,
    "--source",
    metavar="NAME=FOLDER",
    help="Read the model that the study calls NAME from FOLDER; repeatable.",
)
_DRY = typer.Option(
    False, "--dry-run", help="Print every cell with its estimated memory and time (`lavi plan`), and exit."
)
_DEVICE = typer.Option(
    "here", "--device", metavar="NAME", help="For --dry-run: a device such as h100, or `here`."
)
_COMMANDS = typer.Option(False, "--commands", help="Print one command for each cell, and exit.")
_REUSE = typer.Option(
    None,
    "--reuse",
    metavar="FOLDER",
    help="Copy cells of the same recipe from another study's folder; repeatable.",
)
_TABLE = typer.Option(False, "--table", help="Only write the table of the finished cells.")


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
    """Train and evaluate every cell of a grid, and write one table of all scores.

    \b
    lavi study world-read-outs --dry-run              estimate time and memory
    lavi study world-read-outs                        run it, or continue it after an interruption
    lavi study world-read-outs --commands | parallel -j 4
    lavi study world-read-outs --table                the table of what is finished so far
    lavi study my_study.yaml --only "t5-*" --out runs/mine
    lavi study world-ablation --reuse runs/world-language-models

    A cell is a condition with a seed. The study trains each cell like `lavi train`, evaluates it like `lavi
    evaluate`, and skips finished cells. A cell that fails does not stop the others; the study names it at the
    end (exit code 1).

    The study writes table.md, table.json, table.csv, contact_sheet.png and study.html into its folder, and
    prints the table. Every score has an interval over prompts and seeds, and differences are paired.

    Without a network, set HF_HUB_OFFLINE=1 so that the study does not wait for the hub.
    """
    if sum((dry_run, commands, table)) > 1:
        raise typer.BadParameter("--dry-run, --commands and --table exclude each other: give one of them")
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
    """Run the cells, and write the table unless a later call will do it."""
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
    # Calls for single cells leave the table to a later `--table`.
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
            raise RecipeError(f"--source must be NAME=FOLDER with an existing folder, found '{each}'")
        found[name] = str(expand_path(folder).absolute())
    return found
