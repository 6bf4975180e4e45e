"""Writes one self-contained HTML page for run folders, and its numbers as JSON.

    folders -> contents (report.json) -> page        the page takes every number from report.json
            -> pictures -------------->

The same folders give the same bytes. The page embeds pictures and charts. Both files are complete before
either is written.
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from lavibridge.core.errors import RunError
from lavibridge.core.files import write_atomic, write_json
from lavibridge.core.log import console, progress_bar
from lavibridge.core.paths import require_file_path
from lavibridge.report.charts import draw_chart
from lavibridge.report.embedded_images import EMBEDDED_SHEET_SIDE, EmbeddedImage, embed_image
from lavibridge.report.formatting import format_difference, format_estimate, format_fact, format_score
from lavibridge.report.report_contents import make_report_contents, read_report_runs

try:
    from jinja2 import Environment, PackageLoader, StrictUndefined
except ImportError:
    raise RunError("reports need Jinja2: pip install 'lavibridge[report]'") from None


def write_report(folders: Sequence[Path], page: Path) -> Path:
    """Read the run folders, write the page and its JSON, return the page's path.

    Lists on stderr and on the page the parts that it cannot show. Raises RunError, and writes nothing, if a
    folder is not a run or if a file is damaged.
    """
    page = require_file_path(page)
    numbers = page.with_suffix(".json")
    if numbers == page:
        raise RunError(f"{page} is the name of the JSON file: choose another suffix, such as .html")
    runs = read_report_runs(folders)
    contents = make_report_contents(runs)
    text = render_report(contents, [run.folder for run in runs])
    write_json(numbers, contents)
    write_atomic(page, text)
    for note in contents["notes"]:
        console.print(f"note: {note}", soft_wrap=True)
    return page


def render_report(contents: Mapping[str, Any], folders: Sequence[Path]) -> str:
    """Render report.json as a page, with images from the runs' folders."""

    def picture(run: int, file: str) -> EmbeddedImage:
        return embed_image(folders[run] / file)

    def sheet(run: int, file: str) -> EmbeddedImage:
        return embed_image(folders[run] / file, EMBEDDED_SHEET_SIDE)

    templates = page_environment()
    templates.filters.update(
        estimate=format_estimate, difference=format_difference, fact=format_fact, score=format_score
    )
    templates.filters.update(
        yaml=partial(yaml.safe_dump, sort_keys=False, allow_unicode=True), indented=_indented
    )
    templates.filters["pointer"] = _pointer
    with progress_bar("charts") as bar:
        task = bar.add_task("drawing the report", total=len(contents["curves"]), status="")
        charts = []
        for chart in contents["curves"]:
            charts.append(draw_chart(chart))
            bar.update(task, advance=1, status=chart["title"])
    return templates.get_template("report.html.j2").render(
        report=contents, charts=charts, picture=picture, sheet=sheet
    )


def page_environment() -> Environment:
    """The package's Jinja environment, in which an undefined name is an error."""
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
    """Escape a key for a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")
