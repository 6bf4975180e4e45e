"""`lavi report`: run folders in, one page out."""

from pathlib import Path

import typer

_RUNS = typer.Argument(
    metavar="RUN...", help="One or more run folders; the first is compared with the others."
)
_OUT = typer.Option(
    None,
    "--out",
    "-o",
    metavar="FILE",
    help="File of the page; its numbers are written next to it as .json.  "
    "[default: RUN/report.html, or report.html for several]",
)


def report(runs: list[Path] = _RUNS, out: Path | None = _OUT) -> None:
    """Write runs up as one self-contained HTML page.

    \b
    lavi report runs/quickstart
    lavi report runs/first runs/second --out comparison.html

    It says what was trained, what it scores with intervals and paired differences, shows the same prompts
    side by side, the worst and the best pictures with the metrics' scores, curves, what each number depends
    on, and the text of a model card. The page needs no network and no other file; report.json beside it has
    every number that it shows. A run may still be in training. The page's path is printed on stdout, and
    stderr lists what could not be shown.
    """
    from lavibridge.report.page import write_report

    page = out or (runs[0] / "report.html" if len(runs) == 1 else Path("report.html"))
    print(write_report(runs, page))
