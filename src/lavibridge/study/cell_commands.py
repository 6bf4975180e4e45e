"""Writes one command per cell, for a job launcher such as a SLURM array, Ray, GNU parallel or xargs.

lavi study NAME --only CELL --out OUT    works in any folder, in any order, any number of times
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lavibridge.core.paths import expand_path
from lavibridge.study.cells import Cell
from lavibridge.study.shipped import shipped_studies


def cell_commands(study: str, cells: Sequence[Cell], out: Path, sources: Mapping[str, str]) -> Iterator[str]:
    """The command of each cell, quoted for a shell, with absolute paths."""
    named = study if study in shipped_studies() else str(expand_path(study).absolute())
    moved = [part for name, place in sources.items() for part in ("--source", f"{name}={place}")]
    for cell in cells:
        yield shlex.join(["lavi", "study", named, "--only", cell.name, "--out", str(out.absolute()), *moved])
