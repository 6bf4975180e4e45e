"""Run folders -> one self-contained HTML page, and the numbers that it shows as report.json beside it.

    folders -> contents (report.json) -> page        the page reads no number from elsewhere
            -> pictures -------------->

A pure function of the folders: the same folders give the same bytes. Pictures and charts are inside the page.
Both files are made whole before either is written.
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from lavibridge.core.errors import RunError
from lavibridge.core.files import write_atomic, write_json
from lavibridge.core.log import console, progress
from lavibridge.core.paths import as_file
from lavibridge.report.charts import draw
from lavibridge.report.contents import contents, read_runs
from lavibridge.report.embedded_images import SHEET_SIDE, EmbeddedImage, embed_image
from lavibridge.report.formatting import format_difference, format_estimate, format_fact, format_score

try:
    from jinja2 import Environment, PackageLoader, StrictUndefined
except ImportError:
    raise RunError(
        "reports are written with Jinja2, which is missing: pip install 'lavibridge[report]'"
    ) from None


def write_report(folders: Sequence[Path], page: Path) -> Path:
    """Read the run folders, write the page and its JSON, return the page's path.

    What cannot be shown is said on stderr and on the page. RunError for what is no run folder, for a damaged
    file or picture; nothing is written then.
    """
    page = as_file(page)
    numbers = page.with_suffix(".json")
    if numbers == page:
        raise RunError(f"{page} is where the numbers would go: give the page another ending, such as .html")
    runs = read_runs(folders)
    told = contents(runs)
    text = render(told, [run.folder for run in runs])
    write_json(numbers, told)
    write_atomic(page, text)
    for note in told["notes"]:
        console.print(f"note: {note}", soft_wrap=True)
    return page


def render(told: Mapping[str, Any], folders: Sequence[Path]) -> str:
    """The page of a report.json as text; pictures are read from the runs' folders."""

    def picture(run: int, file: str) -> EmbeddedImage:
        return embed_image(folders[run] / file)

    def sheet(run: int, file: str) -> EmbeddedImage:
        return embed_image(folders[run] / file, SHEET_SIDE)

    made = environment()
    made.filters.update(
        estimate=format_estimate, difference=format_difference, fact=format_fact, score=format_score
    )
    made.filters.update(yaml=partial(yaml.safe_dump, sort_keys=False, allow_unicode=True), indented=_indented)
    made.filters["pointer"] = _pointer
    with progress("charts") as bar:
        task = bar.add_task("drawing the report", total=len(told["curves"]), status="")
        charts = []
        for chart in told["curves"]:
            charts.append(draw(chart))
            bar.update(task, advance=1, status=chart["title"])
    return made.get_template("report.html.j2").render(
        report=told, charts=charts, picture=picture, sheet=sheet
    )


def environment() -> Environment:
    """The templates of this room; a name that a template lacks is an error."""
    return Environment(
        loader=PackageLoader("lavibridge.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _indented(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _pointer(name: str) -> str:
    """A key as a part of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")
