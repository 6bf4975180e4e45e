"""From the finished cells of a study to its table, its page and its sheet of pictures.

OUT/table.md  table.json  table.csv  study.html  contact_sheet.png
"""

from collections.abc import Sequence
from pathlib import Path

from lavibridge.core.errors import RunError
from lavibridge.core.log import console
from lavibridge.study.ceiling_cache import find_ceilings
from lavibridge.study.cells import Cell
from lavibridge.study.contact_sheet import save_sheet, sheet_rows
from lavibridge.study.page import write_page
from lavibridge.study.scores import read_finished
from lavibridge.study.study import Study
from lavibridge.study.table import make_table
from lavibridge.study.write_tables import write_tables


def finish(study: Study, cells: Sequence[Cell], out: Path) -> str:
    """Write all that a study leaves from whatever is finished, and return the table as Markdown.

    RunError where nothing is finished, or where a folder is that of another recipe.
    """
    finished = read_finished(study, cells, out)
    if not any(finished.values()):
        raise RunError(
            f"{out} holds no finished cell of the study '{study.name}': run it without --table first"
        )
    table = make_table(study, finished)
    ceilings = find_ceilings(cells, out) if study.ceiling else {}
    text = write_tables(table, ceilings, out)
    rows = sheet_rows(study, cells, finished, out)
    if rows:
        save_sheet(rows, table.labels, out / "contact_sheet.png")
    page = write_page(table, ceilings, rows, out / "study.html")
    console.print(f"{page}", soft_wrap=True)
    return text
