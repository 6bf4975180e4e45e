"""Writes a study's table, page and contact sheet from its finished cells.

OUT/table.md  table.json  table.csv  study.html  contact_sheet.png
"""

from collections.abc import Sequence
from pathlib import Path

from lavibridge.core.errors import RunError
from lavibridge.core.log import console
from lavibridge.study.ceiling_cache import cached_ceilings
from lavibridge.study.cells import Cell
from lavibridge.study.page import write_study_page
from lavibridge.study.scores import read_finished_scores
from lavibridge.study.study import Study
from lavibridge.study.study_sheet import save_study_sheet, study_sheet_rows
from lavibridge.study.table import make_study_table
from lavibridge.study.write_tables import write_tables


def finish_study(study: Study, cells: Sequence[Cell], out: Path) -> str:
    """Write the outputs of a study from its finished cells, and return the table as Markdown.

    Raises RunError if no cell is finished or a folder holds another recipe.
    """
    finished = read_finished_scores(study, cells, out)
    if not any(finished.values()):
        raise RunError(
            f"{out} holds no finished cell of the study '{study.name}': run the study without --table first"
        )
    table = make_study_table(study, finished)
    ceilings = cached_ceilings(cells, out) if study.ceiling else {}
    text = write_tables(table, ceilings, out)
    rows = study_sheet_rows(study, cells, finished, out)
    if rows:
        save_study_sheet(rows, table.labels, out / "contact_sheet.png")
    page = write_study_page(table, ceilings, rows, out / "study.html")
    console.print(f"{page}", soft_wrap=True)
    return text
