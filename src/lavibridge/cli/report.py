"""`lavi report`: run folders in, one page out."""

from pathlib import Path

import typer

RUNS = typer.Argument(metavar="RUN...", help="One or more run folders.")
OUT = typer.Option(
    None,
    "--out",
    "-o",
    metavar="FILE",
    help="The page.  [default: RUN/report.html, or report.html for several]",
)


def report(runs: list[Path] = RUNS, out: Path | None = OUT) -> None:
    """Write runs up as one self-contained HTML page.

    \b
    lavi report runs/quickstart
    lavi report runs/first runs/second --out comparison.html

    It says what was trained and shows curves, scores and pictures. The page needs no network and no other
    file. Its path is printed on stdout.
    """
    from lavibridge.report.page import write_report

    page = out or (runs[0] / "report.html" if len(runs) == 1 else Path("report.html"))
    print(write_report(runs, page))
