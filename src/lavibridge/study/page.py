"""Writes a study as one self-contained page: question, table, plots, differences, claims and pictures.

OUT/study.html        needs no network and no other file; equal results give equal bytes
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lavibridge.core.errors import RunError
from lavibridge.core.files import write_atomic
from lavibridge.study import formatting
from lavibridge.study.ceiling_cache import Ceiling
from lavibridge.study.plots import interval_plots
from lavibridge.study.study_sheet import SheetRow
from lavibridge.study.table import StudyTable
from lavibridge.study.write_tables import CEILING_COLUMNS, CEILING_NOTE

try:
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
except ImportError:
    raise RunError("a study's page needs Jinja2: pip install 'lavibridge[report]'") from None


def write_study_page(
    table: StudyTable, ceilings: Mapping[str, Ceiling], rows: Sequence[SheetRow], page: Path
) -> Path:
    """Write the page; returns its path."""
    write_atomic(page, _render(table, ceilings, rows))
    return page


def _render(table: StudyTable, ceilings: Mapping[str, Ceiling], rows: Sequence[SheetRow]) -> str:
    """The page as text."""
    environment = Environment(
        # Studies share the reports' style sheet.
        loader=ChoiceLoader([PackageLoader("lavibridge.study"), PackageLoader("lavibridge.report")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("study.html.j2").render(
        table=table,
        study=table.study,
        formatting=formatting,
        ceilings=ceilings,
        ceiling_titles=CEILING_COLUMNS,
        ceiling_note=CEILING_NOTE,
        plots=list(interval_plots(table)),
        rows=rows,
    )
